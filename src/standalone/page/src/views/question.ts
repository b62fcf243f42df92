// Asks before something that cannot be taken back. Where the view is over that asks, the answer is no.

import { h } from '../dom';

export function ask(sentence: string, verb: string, over: AbortSignal): Promise<boolean> {
  const dialog = h(
    'dialog',
    {},
    h(
      'form',
      { method: 'dialog' },
      h('p', {}, sentence),
      h('div', { class: 'actions' }, h('button', { value: 'yes', class: 'primary' }, verb), h('button', { value: '' }, 'No')),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  const close = () => dialog.close('');
  over.addEventListener('abort', close);
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      over.removeEventListener('abort', close);
      dialog.remove();
      resolve(dialog.returnValue === 'yes');
    });
  });
}
