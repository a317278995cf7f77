//! What the settings of a mount are: `git config`, then the environment, then the options of `mount`.

use anyhow::{Result, bail};

use crate::types::Settings;

/// Words of mount(8) that say what every mount of ours is anyway.
const STANDARD_WORDS: &[&str] = &["rw", "nosuid", "nodev", "noexec", "noatime"];

/// What the options of `mount` add up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountConfig {
    /// The settings.
    pub settings: Settings,
    /// Whether other users may look and lock.
    pub allow_other: bool,
    /// Whether the kernel is asked to send again what a dead worker left unanswered, where it can. Tests and doubters
    /// say `no_resend`.
    pub resend: bool,
}

impl MountConfig {
    /// Applies the `-o` lists to settings read elsewhere, in order; refuses by name what is unknown.
    pub fn with_options(settings: Settings, options: &[String]) -> Result<Self> {
        let mut config = Self {
            settings,
            allow_other: false,
            resend: true,
        };
        let words = options.iter().flat_map(|list| list.split(','));
        for word in words.filter(|word| !word.is_empty()) {
            config.apply(word)?;
        }
        Ok(config)
    }

    fn apply(&mut self, word: &str) -> Result<()> {
        match word.split_once('=') {
            // A pattern may have an `=` itself; a time never has.
            Some(_) if word.to_ascii_lowercase().starts_with("waitfor.") => {
                let (key, value) = word.rsplit_once('=').unwrap_or((word, ""));
                self.settings.set(key, value)?;
            }
            Some((key, value)) => self.settings.set(key, value)?,
            None if word == "allow_other" => self.allow_other = true,
            None if word == "no_resend" => self.resend = false,
            None if STANDARD_WORDS.contains(&word) => {}
            None => bail!("-o {word}: there is no such mount option"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn config(options: &[&str]) -> Result<MountConfig> {
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        MountConfig::with_options(Settings::default(), &options)
    }

    #[test]
    fn options_set_keys_in_order_and_take_the_standard_words() {
        let config = config(&["rw,nosuid,wait=5s,allow_other", "wait=6s,waitFor.a=b*=1s,noatime"]).expect("options");
        assert!(config.allow_other && config.resend);
        assert_eq!(config.settings.wait, Some(Duration::from_secs(6)));
        assert_eq!(
            config.settings.wait_limit(["a=bc"]),
            Some(Duration::from_secs(1)),
            "the last = ends a pattern"
        );
    }

    #[test]
    fn what_is_unknown_is_refused_by_name() {
        for (bad, name) in [
            ("suid", "suid"),
            ("wait", "wait"),
            ("waits=5s", "lockfs.waits"),
            ("wait=soon", "lockfs.wait"),
            ("rw,exec", "exec"),
            ("allow_other=1", "allow_other"),
            ("waitFor.x.lock", "waitFor.x.lock"),
        ] {
            let error = config(&[bad]).expect_err(bad).to_string();
            assert!(error.contains(name), "{bad}: {error}");
        }
    }
}
