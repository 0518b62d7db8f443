// Bundles every widget: src/<widget>.js and .css become nenya_nb/static/<widget>.js and .css.
// `node build.mjs` builds once, `node build.mjs --watch` rebuilds on each change.
import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const source = join(here, "src");
const target = join(here, "..", "nenya_nb", "static");
const STAMP = "sources.sha256";

/** All files below a folder, as paths relative to it. */
async function walk(folder) {
  const entries = await readdir(folder, { withFileTypes: true, recursive: true });
  return entries.filter((e) => e.isFile()).map((e) => relative(folder, join(e.parentPath ?? e.path, e.name)));
}

/** Hash of everything a bundle is made from; build_backend.py computes the same one. */
async function fingerprint() {
  const files = (await walk(source)).filter((name) => /\.(js|css)$/.test(name)).map((name) => `src/${name.split(sep).join("/")}`);
  const hash = createHash("sha256");
  for (const name of [...files, "build.mjs", "package-lock.json", "package.json"].sort()) {
    const text = (await readFile(join(here, name), "utf8")).replaceAll("\r\n", "\n");
    hash.update(`${name}\0${text}\0`);
  }
  return hash.digest("hex");
}

/** Style sheets of dependencies only apply inside our widgets: their rules are nested in .nnb-root. */
const scoped = {
  name: "scoped-dependency-css",
  setup(build) {
    build.onLoad({ filter: /node_modules.*\.css$/ }, async ({ path }) => ({
      contents: `.nnb-root {\n${await readFile(path, "utf8")}\n}`,
      loader: "css",
    }));
  },
};

/**
 * The rules of a widget weigh more than those that all share (base.css), in whatever order a page got the style sheets of
 * several: .nnb-live becomes .nnb-root.nnb-live. And they are about this widget only.
 */
const weighed = {
  name: "weighed-widget-css",
  setup(build) {
    build.onLoad({ filter: /src.[a-z_]+\.css$/ }, async ({ path }) => {
      const text = await readFile(path, "utf8"),
        [root] = /\.nnb-[a-z]+/.exec(text);
      if (text.includes(".nnb-root")) return { errors: [{ text: `.nnb-root is for base.css; begin the rules with ${root}` }] };
      return { contents: text.replace(new RegExp(`\\${root}(?![\\w-])`, "g"), `.nnb-root${root}`), loader: "css" };
    });
  },
};

const entries = (await readdir(source)).filter((name) => /\.(js|css)$/.test(name));
const options = {
  entryPoints: entries.map((name) => join(source, name)),
  outdir: target,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2020",
  charset: "utf8",
  legalComments: "eof",
  // RequireJS on static pages would make UMD dependencies register there instead of exporting
  define: { "define.amd": "false" },
  plugins: [scoped, weighed],
  logLevel: "warning",
  metafile: true,
};

if (process.argv.includes("--watch")) {
  await (await esbuild.context({ ...options, logLevel: "info" })).watch();
} else {
  const stamp = await fingerprint();
  await mkdir(target, { recursive: true });
  const { metafile } = await esbuild.build(options); // where it fails, the bundles of before stay
  const made = Object.keys(metafile.outputs).map((file) => basename(file));
  for (const name of await readdir(target)) if (!made.includes(name)) await rm(join(target, name), { recursive: true });
  await writeFile(join(target, STAMP), `${stamp}\n`);
  for (const [file, { bytes }] of Object.entries(metafile.outputs)) {
    console.log(`${(bytes / 1024).toFixed(1).padStart(7)} KiB  ${relative(target, join(process.cwd(), file))}`);
  }
}
