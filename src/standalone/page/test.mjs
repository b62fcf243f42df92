// Bundles each test as the page is bundled, and runs it in Node.js.

import { spawnSync } from 'node:child_process';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const tests = fileURLToPath(new URL('test/', import.meta.url));
const names = (await readdir(tests)).filter((name) => name.endsWith('.test.ts'));
const outdir = await mkdtemp(join(tmpdir(), 'page-test.'));
try {
  await build({
    entryPoints: names.map((name) => join(tests, name)),
    outdir,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    platform: 'browser',
    external: ['node:*'],
    format: 'esm',
    logLevel: 'warning',
  });
  const files = names.map((name) => join(outdir, name.replace(/\.ts$/, '.mjs')));
  process.exitCode = spawnSync(process.execPath, ['--test', ...files], { stdio: 'inherit' }).status ?? 1;
} finally {
  await rm(outdir, { recursive: true });
}
