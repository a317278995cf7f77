//! The sheet that charts are drawn on: its size, its colours by meaning, and the frame of the document around it.
//!
//! The drawing library writes colours as attributes. They are the light ones, so a program without style sheets shows
//! the chart as well; [`STYLE`] names the same attributes and gives each its dark counterpart. `charts/tests.rs` sees to
//! it that no colour is drawn that has none.

use std::error::Error;
use std::fmt::Write as _;
use std::panic::{self, AssertUnwindSafe};

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// The sheet of one chart.
pub type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// Drawing into memory does not fail; the library's type says that it might.
pub type Drawn = Result<(), Box<dyn Error>>;

/// In pixels, as all lengths here.
pub const WIDTH: u32 = 640;
/// The height of every chart.
pub const HEIGHT: u32 = 280;
/// The size of small text, that of axes.
pub const SMALL: u32 = 12;
/// A user's text is cut after so many columns.
const LABEL_COLUMNS_MAX: usize = 27;

/// The background.
pub const PAPER: RGBColor = RGBColor(0xFF, 0xFF, 0xFF);
/// Text that matters.
pub const INK: RGBColor = RGBColor(0x1F, 0x29, 0x33);
/// Text that explains.
pub const MUTED: RGBColor = RGBColor(0x5B, 0x66, 0x73);
/// Lines that guide the eye.
pub const GRID: RGBColor = RGBColor(0xE3, 0xE7, 0xEC);
/// What is usual: medians, holds.
pub const CALM: RGBColor = RGBColor(0x0F, 0x76, 0x6E);
/// What deserves a look: 95th percentiles, waits.
pub const WARM: RGBColor = RGBColor(0xB4, 0x53, 0x09);
/// What is bad: 99th percentiles, time-outs.
pub const HOT: RGBColor = RGBColor(0xBE, 0x18, 0x5D);
/// Amounts without a judgement.
pub const PLAIN: RGBColor = RGBColor(0x25, 0x63, 0xEB);

/// The dark counterparts, as a style sheet that stands in each chart; the dashboard's content policy names its hash.
pub const STYLE: &str = "\
.lockfs-chart text{font-family:system-ui,sans-serif;font-variant-numeric:tabular-nums}
@media (prefers-color-scheme:dark){
.lockfs-chart [fill=\"#FFFFFF\"]{fill:#171C23}
.lockfs-chart [fill=\"#1F2933\"]{fill:#E6EAEF}
.lockfs-chart [fill=\"#5B6673\"]{fill:#9AA6B2}
.lockfs-chart [fill=\"#E3E7EC\"]{fill:#2C343E}
.lockfs-chart [fill=\"#0F766E\"]{fill:#2DD4BF}
.lockfs-chart [fill=\"#B45309\"]{fill:#FBBF24}
.lockfs-chart [fill=\"#BE185D\"]{fill:#F472B6}
.lockfs-chart [fill=\"#2563EB\"]{fill:#60A5FA}
.lockfs-chart [stroke=\"#5B6673\"]{stroke:#9AA6B2}
.lockfs-chart [stroke=\"#E3E7EC\"]{stroke:#2C343E}
.lockfs-chart [stroke=\"#0F766E\"]{stroke:#2DD4BF}
.lockfs-chart [stroke=\"#B45309\"]{stroke:#FBBF24}
.lockfs-chart [stroke=\"#BE185D\"]{stroke:#F472B6}
}
";

/// A document with what `drawing` puts onto the sheet.
pub fn draw(title: &str, description: &str, drawing: impl FnOnce(&Canvas<'_>) -> Drawn) -> String {
    let onto_sheet = || {
        let mut body = String::new();
        let canvas = SVGBackend::with_string(&mut body, (WIDTH, HEIGHT)).into_drawing_area();
        canvas.fill(&PAPER)?;
        drawing(&canvas)?;
        canvas.present()?;
        drop(canvas);
        Ok::<_, Box<dyn Error>>(body)
    };
    // Figures are anything at all, and the library panics on arithmetic that it did not expect. A picture that is
    // missing is not worth the thread that draws it.
    let body = match panic::catch_unwind(AssertUnwindSafe(onto_sheet)) {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => {
            tracing::warn!("a chart could not be drawn ({title}): {error}");
            String::new()
        }
        Err(_) => String::new(),
    };
    // The library's own first line has neither a title nor a style.
    let elements = body.split_once(">\n").map_or("", |(_, rest)| rest);
    let elements = elements.trim_end().trim_end_matches("</svg>");
    let mut document = String::with_capacity(elements.len() + STYLE.len() + 512);
    let _ = write!(
        document,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"lockfs-chart\" role=\"img\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\">\n<title>{title}</title>\n<desc>Last 7 days. {description}</desc>\n\
         <style>{STYLE}</style>\n{elements}</svg>\n"
    );
    document
}

/// Text of a colour, to be placed by its middle left.
pub fn text(size: u32, colour: RGBColor) -> TextStyle<'static> {
    // The library draws text at 1/1.24 of the size that it is given.
    let size = f64::from(size) * 1.24;
    let font = FontDesc::new(FontFamily::SansSerif, size, FontStyle::Normal);
    TextStyle {
        font,
        color: colour.to_backend_color(),
        pos: Pos::new(HPos::Left, VPos::Center),
    }
}

/// The same, placed by its middle right.
pub fn text_right(size: u32, colour: RGBColor) -> TextStyle<'static> {
    text(size, colour).pos(Pos::new(HPos::Right, VPos::Center))
}

/// The same, placed by its centre.
pub fn text_centred(size: u32, colour: RGBColor) -> TextStyle<'static> {
    text(size, colour).pos(Pos::new(HPos::Center, VPos::Center))
}

/// Says in the middle of the sheet why there is nothing on it.
pub fn say(canvas: &Canvas<'_>, sentence: &str) -> Drawn {
    let middle = (WIDTH as i32 / 2, HEIGHT as i32 / 2);
    Ok(canvas.draw_text(sentence, &text_centred(14, MUTED), middle)?)
}

/// Names the colours above the drawing, from the right edge to the left.
pub fn legend(canvas: &Canvas<'_>, entries: &[(&str, RGBColor)]) -> Drawn {
    let mut right = WIDTH as i32 - 16;
    for (name, colour) in entries.iter().rev() {
        let middle = 18;
        canvas.draw_text(name, &text_right(SMALL, INK), (right, middle))?;
        let left = right - name.chars().count() as i32 * 13 / 2 - 18;
        canvas.draw(&Rectangle::new(
            [(left, middle - 5), (left + 10, middle + 5)],
            colour.filled(),
        ))?;
        right = left - 16;
    }
    Ok(())
}

/// A user's text, short enough for a label and without characters that would not be seen as they are.
pub fn label(user_text: &str) -> String {
    let mut columns = 0;
    let mut shortened = String::new();
    for char in user_text.chars() {
        columns += if char.is_ascii() { 1 } else { 2 };
        if columns > LABEL_COLUMNS_MAX {
            shortened.push('…');
            break;
        }
        // What XML does not know, and what would turn the text around.
        let known = !char.is_control()
            && !matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            && !matches!(char, '\u{fffe}' | '\u{ffff}');
        shortened.push(if known { char } else { '\u{fffd}' });
    }
    shortened
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_library_costs_one_picture() {
        let document = draw("Title", "Words.", |_| panic!("attempt to multiply with overflow"));
        assert!(
            document.starts_with("<svg ") && document.ends_with("</svg>\n"),
            "{document}"
        );
    }
}
