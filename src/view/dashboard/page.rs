//! The page: markup, style and script from the files beside this one, under a policy that admits nothing else.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::view::charts;

const MARKUP: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

static PAGE: LazyLock<String> = LazyLock::new(|| {
    MARKUP
        .replace("{policy}", &policy())
        .replace("{style}", STYLE)
        .replace("{script}", SCRIPT)
});

/// `metrics/dashboard.html`: always the same.
pub fn page() -> &'static str {
    &PAGE
}

/// What the browser lets the page do.
///
/// The page's own script, by its hash, and what that script loads itself (live.js), under any scheme: 'self' means
/// different things to different browsers when the page is a file. Styles by hash, so none from markup. No images, frames,
/// forms or fonts; connections only to where the page came from, which for a file is nowhere. Strings become markup or
/// script addresses through the one policy that the page's script makes.
fn policy() -> String {
    format!(
        "default-src 'none'; script-src {} 'strict-dynamic'; style-src {} {}; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types lockfs",
        source(SCRIPT),
        source(STYLE),
        source(charts::STYLE),
    )
}

fn source(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_asks_nothing_of_a_network() {
        let page = page();
        for left_over in ["{policy}", "{style}", "{script}"] {
            assert!(!page.contains(left_over), "{left_over}");
        }
        for elsewhere in ["http:", "https:", "//cdn", "@import", "url("] {
            assert!(!page.contains(elsewhere), "{elsewhere}");
        }
        assert!(
            !page.contains(" style=") && !page.contains(" onclick="),
            "the policy would refuse them"
        );
    }

    #[test]
    fn the_policy_names_nothing_but_hashes_and_ourselves() {
        for loose in ["unsafe", "*", "http", "file:", "blob:", "wasm"] {
            assert!(!policy().contains(loose), "{loose}");
        }
        assert!(policy().starts_with("default-src 'none'; script-src 'sha256-"));
        assert_eq!(policy().matches("data:").count(), 1, "for the icon that is none");
    }

    #[test]
    fn the_policy_names_the_hash_of_what_is_between_the_tags() {
        // echo -n 'body' | openssl dgst -sha256 -binary | base64
        assert_eq!(source("body"), "'sha256-Iw2DWNyOiJC0xY3utikS7i8gNXrpKlzIYbmOaP4xrLU='");
        let page = page();
        for (tag, text) in [("style", STYLE), ("script", SCRIPT)] {
            assert!(
                page.contains(&format!("<{tag}>{text}</{tag}>")),
                "{tag}: white space counts"
            );
        }
    }
}
