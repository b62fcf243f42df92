//! Puts the page of `standalone` into the executable: what `make build` has bundled, or, where nobody has, a notice.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

const PAGE: &str = "src/standalone/page";

/// Where the files are that the page loads, as its own files write it.
const ASSETS: &str = "/page/assets/";

fn main() -> io::Result<()> {
    let variable = |name: &str| env::var_os(name).ok_or_else(|| io::Error::other(name.to_owned()));
    let page = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join(PAGE);
    let (bundle, notice) = (page.join("dist"), page.join("notice.html"));
    println!("cargo::rustc-check-cfg=cfg(page_is_bundled)");
    let text = if bundle.exists() {
        println!("cargo::rerun-if-changed={}", bundle.display());
        match assets(&bundle) {
            Ok(assets) => {
                println!("cargo::rustc-cfg=page_is_bundled");
                listed(&bundle.join("index.html"), &assets)
            }
            Err(missing) => {
                let told = "the page of standalone is left out, as what was bundled of it is not whole";
                println!("cargo::warning={told} ({missing}): run src/standalone/page/bundle");
                listed(&notice, &[])
            }
        }
    } else {
        // A path that is not there would be looked for again at each build; its parent changes when it comes.
        println!("cargo::rerun-if-changed={}", page.display());
        listed(&notice, &[])
    };
    fs::write(PathBuf::from(variable("OUT_DIR")?).join("bundled_page.rs"), text)
}

/// The files that the page loads, and those that they load, in order; or what of them cannot be read.
fn assets(bundle: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = BTreeSet::new();
    let mut unread = vec![bundle.join("index.html")];
    while let Some(file) = unread.pop() {
        let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        for rest in text.split(ASSETS).skip(1) {
            let name: String = rest.chars().take_while(|letter| is_of_name(*letter)).collect();
            let asset = bundle.join("assets").join(name);
            if found.insert(asset.clone()) {
                unread.push(asset);
            }
        }
    }
    if found.is_empty() {
        Err("index.html loads nothing".to_owned())
    } else {
        Ok(found.into_iter().collect())
    }
}

fn is_of_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "-_.".contains(letter)
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
