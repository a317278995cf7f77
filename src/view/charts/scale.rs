//! Durations as people read them on an axis, and the steps at which an axis is marked.

use std::time::Duration;

/// A duration in two or three digits: `0`, `0.4 ms`, `12 ms`, `1.5 s`, `3 min`, `2.5 h`, `4 d`.
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs_f64();
    let (number, unit) = match seconds {
        ..0.000_000_5 => return "0".to_owned(),
        ..0.999_5 => (seconds * 1e3, "ms"),
        ..119.5 => (seconds, "s"),
        ..7_170.0 => (seconds / 60.0, "min"),
        ..172_080.0 => (seconds / 3600.0, "h"),
        _ => (seconds / 86_400.0, "d"),
    };
    format!("{} {unit}", digits(number))
}

/// The number with as many decimals as matter.
fn digits(number: f64) -> String {
    let decimals = match number {
        ..0.095 => 3,
        ..0.95 => 2,
        ..9.95 => 1,
        _ => 0,
    };
    let text = format!("{number:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A whole number, its thousands apart: `12 345`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// The least number of one digit, times a power of ten, that is not below the number; 7 and 9, which do not divide
/// well, are passed over. At least 1.
pub fn round_up(number: f64) -> f64 {
    if number <= 1.0 {
        return 1.0;
    }
    let power = 10_f64.powf(number.log10().floor());
    let steps = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
    let step = steps.into_iter().find(|step| step * power >= number * 0.999_999);
    step.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short_and_name_their_unit() {
        let cases = [
            (0, "0"),
            (40, "0.04 ms"),
            (400, "0.4 ms"),
            (1_500, "1.5 ms"),
            (12_345, "12 ms"),
            (999_900, "1 s"),
            (1_500_000, "1.5 s"),
            (61_000_000, "61 s"),
            (180_000_000, "3 min"),
            (9_000_000_000, "2.5 h"),
            (345_600_000_000, "4 d"),
        ];
        for (micros, text) in cases {
            assert_eq!(span(Duration::from_micros(micros)), text);
        }
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000_000), "1\u{202f}000\u{202f}000");
    }

    #[test]
    fn an_axis_ends_at_a_round_number() {
        for (number, end) in [
            (0.0, 1.0),
            (1.0, 1.0),
            (3.2, 4.0),
            (5.0, 5.0),
            (61.0, 80.0),
            (1000.0, 1000.0),
        ] {
            assert_eq!(round_up(number), end, "{number}");
        }
    }
}
