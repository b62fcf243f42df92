// Elements, made in one expression. Text is always text: nothing is ever parsed as HTML.

export type Child = Node | string | number | undefined | false;

type Attributes = Record<string, string | number | boolean | ((event: never) => void) | undefined>;

/** An element; `onclick` and the like are listeners, `true` is an attribute without a value. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(name.replace(/^on/, ''), value as EventListener);
    else if (value === true) element.setAttribute(name, '');
    else if (value !== undefined && value !== false) element.setAttribute(name, String(value));
  }
  element.append(...nodes(children));
  return element;
}

/** Puts other children in place of those that are there. The focus stays on the link or button that had it. */
export function replace(parent: Element, ...children: Child[]): void {
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  const key = focused?.getAttribute('href') ?? focused?.textContent;
  parent.replaceChildren(...nodes(children));
  if (focused === null) return;
  const again = [...parent.querySelectorAll<HTMLElement>('a, button')].find(
    (element) => (element.getAttribute('href') ?? element.textContent) === key,
  );
  again?.focus({ preventScroll: true });
}

/** Has an element say something, or nothing. What it says already is not said again: people may hear it. */
export function tell(element: Element, text = ''): void {
  if (element.textContent !== text) element.textContent = text;
}

function nodes(children: Child[]): (Node | string)[] {
  return children
    .filter((child): child is Node | string | number => child !== undefined && child !== false)
    .map((child) => (typeof child === 'number' ? String(child) : child));
}
