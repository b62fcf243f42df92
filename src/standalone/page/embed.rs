//! Puts the page of `standalone` into the executable: what `make build` has bundled, or, where nobody has, a notice.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

const PAGE: &str = "src/standalone/page";

fn main() -> io::Result<()> {
    let variable = |name: &str| env::var_os(name).ok_or_else(|| io::Error::other(name.to_owned()));
    let page = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join(PAGE);
    let (bundle, notice) = (page.join("dist"), page.join("notice.html"));
    let is_bundled = bundle.join("index.html").exists();
    println!("cargo::rustc-check-cfg=cfg(page_is_bundled)");
    let text = if is_bundled {
        println!("cargo::rerun-if-changed={}", bundle.display());
        println!("cargo::rustc-cfg=page_is_bundled");
        listed(&bundle.join("index.html"), &assets(&bundle)?)
    } else {
        // A path that is not there would be looked for again at each build; its parent changes when it comes.
        println!("cargo::rerun-if-changed={}", page.display());
        listed(&notice, &[])
    };
    fs::write(PathBuf::from(variable("OUT_DIR")?).join("bundled_page.rs"), text)
}

/// The files that the page loads, in order.
fn assets(bundle: &Path) -> io::Result<Vec<PathBuf>> {
    let found = fs::read_dir(bundle.join("assets"))?.map(|entry| entry.map(|entry| entry.path()));
    let mut found = found.collect::<io::Result<Vec<_>>>()?;
    found.sort();
    Ok(found)
}

/// Rust code that has these files in it.
fn listed(index: &Path, assets: &[PathBuf]) -> String {
    let files: Vec<String> = assets.iter().map(|asset| bundled(asset)).collect();
    format!(
        "const INDEX: &str = include_str!({index:?});\nconst FILES: &[Bundled] = &[{}];\n",
        files.join(", ")
    )
}

fn bundled(asset: &Path) -> String {
    let name = asset.file_name().unwrap_or_default().to_string_lossy();
    let kind = if name.ends_with(".css") { "text/css" } else { "text/javascript" };
    format!(
        "Bundled {{ path: \"/page/assets/{name}\", content_type: \"{kind}; charset=utf-8\", \
         bytes: include_bytes!({asset:?}) }}"
    )
}
