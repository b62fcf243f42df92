// Bundles the page into dist/: index.html, and below assets/ what it loads, each file named by its own content so that
// browsers keep it for ever.

import { createHash } from 'node:crypto';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { basename, extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = new URL('.', import.meta.url);
const place = (path) => fileURLToPath(new URL(path, here));

await rm(place('dist'), { recursive: true, force: true });
await mkdir(place('dist/assets'), { recursive: true });

const worker = await bundle('src/log/worker.ts', {});
const main = await bundle('src/main.ts', { LOG_WORKER: JSON.stringify(worker) });
const style = await bundle('src/style.css', {});

const html = await readFile(place('src/index.html'), 'utf8');
await writeFile(place('dist/index.html'), html.replace('MAIN', main).replace('STYLE', style));

/** Bundles one entry and returns the URL that the file has in the page. */
async function bundle(entry, define) {
  const built = await build({
    entryPoints: [place(entry)],
    bundle: true,
    minify: true,
    write: false,
    format: 'iife',
    target: ['es2022', 'chrome110', 'firefox115', 'safari16'],
    legalComments: 'inline',
    define,
  });
  const [{ contents }] = built.outputFiles;
  const kind = extname(entry) === '.css' ? '.css' : '.js';
  const digest = createHash('sha256').update(contents).digest('hex').slice(0, 16);
  const name = `assets/${basename(entry, extname(entry))}-${digest}${kind}`;
  await writeFile(place(`dist/${name}`), contents);
  return `/page/${name}`;
}
