// Hawk, the half of it that a client needs: signs the head of a request, and its payload by a hash.
//
//   Authorization: Hawk id="…", ts="…", nonce="…", hash="…", mac="…"
//   mac = HMAC-SHA256(key, "hawk.1.header", ts, nonce, method, resource, host, port, hash, ext)
//
// Not the browser's own WebCrypto: that is only there on loopback and with TLS, and the page is also served over plain
// HTTP in a network of one's own.

import { hmac } from '@noble/hashes/hmac.js';
import { sha256 } from '@noble/hashes/sha2.js';
import { utf8ToBytes } from '@noble/hashes/utils.js';

export interface Credentials {
  clientId: string;
  accessToken: string;
}

/** What of a request is signed. */
export interface Signed {
  method: string;
  url: URL;
  /** Absent where there is no payload. */
  payload?: { contentType: string; text: string };
}

/** The header `Authorization`. `seconds` is the server's time since 1970, `nonce` any text without quotes. */
export function authorization(credentials: Credentials, signed: Signed, seconds: number, nonce: string): string {
  const { method, url, payload } = signed;
  const hash = payload === undefined ? '' : payloadHash(payload.contentType, payload.text);
  const port = url.port || (url.protocol === 'https:' ? '443' : '80');
  const lines = ['hawk.1.header', seconds, nonce, method, url.pathname + url.search, url.hostname, port, hash, ''];
  const text = lines.join('\n') + '\n';
  const mac = base64(hmac(sha256, utf8ToBytes(credentials.accessToken), utf8ToBytes(text)));
  const hashed = hash === '' ? '' : `, hash="${hash}"`;
  return `Hawk id="${credentials.clientId}", ts="${seconds}", nonce="${nonce}"${hashed}, mac="${mac}"`;
}

function payloadHash(contentType: string, text: string): string {
  return base64(sha256(utf8ToBytes(`hawk.1.payload\n${contentType}\n${text}\n`)));
}

function base64(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes));
}
