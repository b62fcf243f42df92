// Bundles the page into dist/: index.html, and below assets/ what it loads, each file named by its own content so that
// browsers keep it for ever. It is made elsewhere and then moved there, so that dist/ is whole or absent.

import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = new URL('.', import.meta.url);
const place = (path) => fileURLToPath(new URL(path, here));

// On the same file system, and nothing that git would see.
const work = await mkdtemp(place('node_modules/.bundle-'));
try {
  await make(join(work, 'new'));
  await rename(place('dist'), join(work, 'old')).catch((error) => {
    if (error.code !== 'ENOENT') throw error;
  });
  await rename(join(work, 'new'), place('dist'));
} finally {
  await rm(work, { recursive: true, force: true });
}

async function make(out) {
  await mkdir(join(out, 'assets'), { recursive: true });
  const worker = await bundle(out, 'src/log/worker.ts', {});
  const main = await bundle(out, 'src/main.ts', { LOG_WORKER: JSON.stringify(worker) });
  const style = await bundle(out, 'src/style.css', {});
  const html = await readFile(place('src/index.html'), 'utf8');
  await writeFile(join(out, 'index.html'), html.replace('MAIN', main).replace('STYLE', style));
}

/** Bundles one entry and returns the URL that the file has in the page. */
async function bundle(out, entry, define) {
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
  await writeFile(join(out, name), contents);
  return `/page/${name}`;
}
