import assert from 'node:assert/strict';
import { test } from 'node:test';
import { authorization } from '../src/hawk';

const KEY = 'werxhqb98rpaxn39848xrunpaw3489ruxnpa98w4rxn';

// The examples of the Hawk specification, without `ext`; the macs are those of Python's hmac.
test('the head of a request is signed, and its payload by a hash', () => {
  const credentials = { clientId: 'dh37fgj492je', accessToken: KEY };
  const url = new URL('http://example.com:8000/resource/1?b=1&a=2');
  const cases = [
    { method: 'GET', payload: undefined, expected: 'nfp3t5BVkMvjhU3PrD0ftTp7NcVpETEX2HEi/Fo4S2g=' },
    { method: 'POST', payload: { contentType: 'text/plain', text: 'Thank you for flying Hawk' }, expected: 'xMQacUaeJiezHpLu67V4Zc90BK53KGSS4VNYp2M3E3o=' },
  ];
  for (const { method, payload, expected } of cases) {
    const signed = payload === undefined ? { method, url } : { method, url, payload };
    const header = authorization(credentials, signed, 1353832234, 'j4h3g2');
    assert.match(header, /^Hawk id="dh37fgj492je", ts="1353832234", nonce="j4h3g2"/);
    assert.equal(/mac="([^"]+)"/.exec(header)?.[1], expected);
    assert.equal(header.includes('hash="Yi9LfIIFRtBEPt74PVmbTF/xVAwPn7ub15ePICfgnuY="'), payload !== undefined);
  }
});

test('a URL without a port is signed with that of its scheme', () => {
  const sign = (url: string) => authorization({ clientId: 'a', accessToken: 'k' }, { method: 'GET', url: new URL(url) }, 1, 'n');
  assert.equal(sign('https://example.com/x'), sign('https://example.com:443/x'));
  assert.equal(sign('http://example.com/x'), sign('http://example.com:80/x'));
  assert.notEqual(sign('http://example.com/x'), sign('https://example.com/x'));
});
