//! Files that are part of the program: styles, scripts, icons, and the vendored chart library
//! (console/assets/VENDORED.md).

/// A file and what it is.
#[derive(Debug, Clone, Copy)]
pub struct Asset {
    pub name: &'static str,
    pub content_type: &'static str,
    pub bytes: &'static [u8],
}

const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! asset {
    ($name:literal, $content_type:expr) => {
        Asset {
            name: $name,
            content_type: $content_type,
            bytes: include_bytes!(concat!("../../assets/", $name)),
        }
    };
}

pub const ALL: [Asset; 8] = [
    asset!("status.css", CSS),
    asset!("status.js", SCRIPT),
    asset!("host.js", SCRIPT),
    asset!("uPlot.iife.min.js", SCRIPT),
    asset!("uPlot.min.css", CSS),
    asset!("ok.svg", SVG),
    asset!("warning.svg", SVG),
    asset!("critical.svg", SVG),
];

pub fn find(name: &str) -> Option<Asset> {
    ALL.into_iter().find(|asset| asset.name == name)
}

/// What a copy in a folder needs: it has no script and no charts.
pub fn of_a_copy() -> impl Iterator<Item = Asset> {
    ALL.into_iter().filter(|asset| !asset.content_type.contains("javascript"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vendored_files_are_the_ones_that_are_written_down() {
        use sha2::{Digest, Sha256};
        let written = include_str!("../../assets/VENDORED.md");
        for name in ["uPlot.iife.min.js", "uPlot.min.css"] {
            let hash = hex::encode(Sha256::digest(find(name).unwrap().bytes));
            assert!(written.contains(&hash), "{name} is {hash}");
        }
    }
}
