//! An error that carries its own exit code; every other error exits with 1.

/// A refusal in one sentence, and the exit code that scripts can tell it by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// What is wrong, and what to do.
    pub sentence: String,
}

/// An error with its own exit code.
pub fn failure(code: u8, sentence: impl Into<String>) -> anyhow::Error {
    Failure {
        code,
        sentence: sentence.into(),
    }
    .into()
}

/// The exit code of an error: that of the [`Failure`] in its chain, else 1.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    let of = |cause: &(dyn std::error::Error + 'static)| cause.downcast_ref::<Failure>().map(|f| f.code);
    error.chain().find_map(of).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn the_exit_code_survives_added_context() {
        let error = Err::<(), _>(failure(69, "no daemon")).context("mount").unwrap_err();
        assert_eq!(exit_code(&error), 69);
        assert_eq!(exit_code(&anyhow::anyhow!("other")), 1);
    }
}
