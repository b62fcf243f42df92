// Who are you?

import * as api from '../api';
import { h, tell } from '../dom';
import * as session from '../session';
import { words, type View } from './view';

export function signIn(done: () => void): View {
  const message = h('p', { class: 'refused', role: 'alert' });
  const clientId = field('clientId', 'text', 'username');
  clientId.autofocus = true;
  const accessToken = field('accessToken', 'password', 'current-password');
  const button = h('button', { type: 'submit', class: 'primary' }, 'Sign in');
  const submit = async (event: Event) => {
    event.preventDefault();
    const credentials = { clientId: clientId.value.trim(), accessToken: accessToken.value.trim() };
    button.disabled = true;
    try {
      await api.check(credentials);
    } catch (error) {
      tell(message, words(error));
      return;
    } finally {
      button.disabled = false;
    }
    session.signIn(credentials);
    done();
  };
  const element = h(
    'form',
    { class: 'sign-in', onsubmit: (event: Event) => void submit(event) },
    h('h1', { tabindex: -1 }, 'Sign in'),
    h(
      'p',
      {},
      'With a client of this queue. Those of its first start are in the file ',
      h('code', {}, 'credentials.json'),
      ' of its data directory. They are kept in this tab until it is closed.',
    ),
    h('label', {}, 'clientId', clientId),
    h('label', {}, 'accessToken', accessToken),
    message,
    button,
  );
  return { title: 'Sign in', element };
}

function field(name: string, type: string, autocomplete: string): HTMLInputElement {
  return h('input', { name, type, autocomplete, required: true, spellcheck: 'false', autocapitalize: 'none' });
}
