// Asks before something that cannot be taken back.

import { h } from '../dom';

export function ask(sentence: string, verb: string): Promise<boolean> {
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
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(dialog.returnValue === 'yes');
    });
  });
}
