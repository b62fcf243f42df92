// Numbers and times, for people.

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

export function bytes(value: number): string {
  let [number, unit] = [value, 0];
  while (number >= 1024 && unit < UNITS.length - 1) [number, unit] = [number / 1024, unit + 1];
  return `${unit === 0 ? number : number.toFixed(1)} ${UNITS[unit]}`;
}

export function count(value: number, noun: string): string {
  return `${value.toLocaleString('en')} ${noun}${value === 1 ? '' : 's'}`;
}

/** From one time to another: `12.3 s`, `4 min 5 s`, `2 h 3 min`. */
export function duration(from: string, to: string | number): string {
  const seconds = Math.max(0, (new Date(to).getTime() - new Date(from).getTime()) / 1000);
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.floor(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** A time of the queue's, where the reader is. */
export function time(text: string): string {
  return new Date(text).toLocaleString();
}
