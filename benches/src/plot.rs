//! Pictures of figures, as SVG: curves over a scale, and bars beside each other with the spread of their rounds.
//!
//! A picture shows nothing that is not in the report's JSON.

use std::ops::Range;
use std::path::Path;

use anyhow::Context;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::measure::Spread;

/// Width and height of a picture with curves.
const SIZE: (u32, u32) = (900, 480);

/// Colours that are told apart by most colour-blind readers too (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(60, 60, 60),
];

/// One curve.
#[derive(Debug, Clone)]
pub struct Curve {
    /// What it is called in the legend.
    pub name: String,
    /// Its points, in the order of their first value.
    pub points: Vec<(f64, f64)>,
}

/// A picture's words.
#[derive(Debug, Clone, Copy)]
pub struct Words<'w> {
    /// Above it.
    pub title: &'w str,
    /// Below it, with the unit.
    pub across: &'w str,
    /// Beside it, with the unit.
    pub up: &'w str,
}

/// Part of a picture's height that a line of the legend takes.
const LEGEND_LINE: f64 = 0.06;

/// How a scale runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Evenly, from 0.
    Even,
    /// By powers of ten; only for values above 0.
    Logarithmic,
}

/// A bar: what it is called, and its value over all rounds.
#[derive(Debug, Clone)]
pub struct Bar {
    /// What it is called.
    pub name: String,
    /// How high it is, and how far its rounds lie apart.
    pub value: Spread,
}

/// Draws curves.
///
/// # Errors
/// If there is nothing to draw, or the file cannot be written.
pub fn curves(
    path: &Path,
    words: Words<'_>,
    across: Scale,
    up: Scale,
    curves: &[Curve],
) -> anyhow::Result<()> {
    let points = || curves.iter().flat_map(|curve| curve.points.iter().copied());
    let x = range(points().map(|(x, _)| x), across).context("no curve has a point")?;
    let mut y = range(points().map(|(_, y)| y), up).context("no curve has a point")?;
    let legend = if across == Scale::Logarithmic {
        // Curves over a logarithmic scale rise to the right.
        SeriesLabelPosition::LowerRight
    } else {
        SeriesLabelPosition::UpperLeft
    };
    if up == Scale::Even {
        let lines = f64::from(u32::try_from(curves.len())?);
        y.end *= 1.0 + LEGEND_LINE * lines;
    }
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    let drawn = match (across, up) {
        (Scale::Even, Scale::Even) => draw(&area, words, x, y, curves, legend),
        (Scale::Even, Scale::Logarithmic) => draw(&area, words, x, y.log_scale(), curves, legend),
        (Scale::Logarithmic, Scale::Even) => draw(&area, words, x.log_scale(), y, curves, legend),
        (Scale::Logarithmic, Scale::Logarithmic) => {
            draw(&area, words, x.log_scale(), y.log_scale(), curves, legend)
        }
    };
    drawn.with_context(|| format!("draw {}", path.display()))
}

fn draw<X, Y>(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    words: Words<'_>,
    x: X,
    y: Y,
    curves: &[Curve],
    legend: SeriesLabelPosition,
) -> anyhow::Result<()>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(area)
        .caption(words.title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(78)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_desc(words.across)
        .y_desc(words.up)
        .x_label_formatter(&|value| number(*value))
        .y_label_formatter(&|value| number(*value))
        .light_line_style(WHITE)
        .draw()?;
    for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let style = colour.stroke_width(2);
        chart
            .draw_series(LineSeries::new(curve.points.iter().copied(), style))?
            .label(&curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        chart.draw_series(
            curve
                .points
                .iter()
                .map(|&point| Circle::new(point, 3, colour.filled())),
        )?;
    }
    chart
        .configure_series_labels()
        .position(legend)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}

/// Height of a bar with the gap to the next, and of what is above and below all of them.
const BAR_HEIGHT: u32 = 30;
const AROUND_BARS: u32 = 100;
/// Width that the names of bars get.
const NAME_WIDTH: u32 = 320;

/// Draws bars from the left, one below the other, with a line over the spread of the rounds and the median in digits.
///
/// # Errors
/// If there is nothing to draw, or the file cannot be written.
pub fn bars(
    path: &Path,
    title: &str,
    unit: &str,
    scale: Scale,
    bars: &[Bar],
) -> anyhow::Result<()> {
    let highs = bars.iter().flat_map(|bar| [bar.value.low, bar.value.high]);
    let reach = range(highs, scale).context("there is no bar")?;
    // Room for the digits behind the longest bar.
    let reach = match scale {
        Scale::Even => reach.start..reach.end * 1.12,
        Scale::Logarithmic => reach.start..reach.end * 4.0,
    };
    let count = u32::try_from(bars.len())?;
    let size = (SIZE.0, count * BAR_HEIGHT + AROUND_BARS);
    let area = SVGBackend::new(path, size).into_drawing_area();
    let drawn = match scale {
        Scale::Even => draw_bars(&area, title, unit, reach, bars),
        Scale::Logarithmic => draw_bars(&area, title, unit, reach.log_scale(), bars),
    };
    drawn.with_context(|| format!("draw {}", path.display()))
}

fn draw_bars<X>(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    unit: &str,
    reach: X,
    bars: &[Bar],
) -> anyhow::Result<()>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
{
    area.fill(&WHITE)?;
    let rows = f64::from(u32::try_from(bars.len())?);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(NAME_WIDTH)
        .build_cartesian_2d(reach, 0.0..rows)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .x_desc(unit)
        .x_label_formatter(&|value| number(*value))
        .light_line_style(WHITE)
        .draw()?;
    let start = chart.x_range().start;
    let mut bottom = rows;
    for (bar, colour) in bars.iter().zip(COLOURS.iter().cycle()) {
        bottom -= 1.0;
        let middle = bottom + 0.5;
        let Spread { median, low, high } = bar.value;
        chart.draw_series([Rectangle::new(
            [(start, bottom + 0.18), (median, bottom + 0.82)],
            colour.mix(0.75).filled(),
        )])?;
        chart.draw_series([PathElement::new(
            [(low, middle), (high, middle)],
            BLACK.stroke_width(2),
        )])?;
        let beside = Pos::new(HPos::Left, VPos::Center);
        chart.draw_series([Text::new(
            format!("  {}", number(median)),
            (high.max(median), middle),
            ("sans-serif", 14).into_text_style(area).pos(beside),
        )])?;
        let (x, y) = chart.backend_coord(&(start, middle));
        let before = Pos::new(HPos::Right, VPos::Center);
        let style = ("sans-serif", 14).into_text_style(area).pos(before);
        area.draw(&Text::new(bar.name.clone(), (x - 8, y), style))?;
    }
    area.present()?;
    Ok(())
}

/// From 0, or from just below the least value, to just above the greatest.
fn range(values: impl Iterator<Item = f64>, scale: Scale) -> Option<Range<f64>> {
    let drawable = |value: &f64| value.is_finite() && (scale == Scale::Even || *value > 0.0);
    let (low, high) = values
        .filter(drawable)
        .fold(None, |range: Option<(f64, f64)>, value| {
            let (low, high) = range.unwrap_or((value, value));
            Some((low.min(value), high.max(value)))
        })?;
    Some(match scale {
        Scale::Even => 0.0..if high > 0.0 { high * 1.05 } else { 1.0 },
        Scale::Logarithmic => low / 1.5..high * 1.5,
    })
}

/// Three digits: `250`, `1.5k`, `2M`, `0.02`.
fn number(value: f64) -> String {
    let (value, unit) = match value.abs() {
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits: usize = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(title: &str) -> Words<'_> {
        Words {
            title,
            across: "requests/s",
            up: "ms",
        }
    }

    #[test]
    fn every_curve_is_in_the_picture_on_every_scale() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("curves.svg");
        let two = [
            Curve {
                name: "first".to_owned(),
                points: vec![(1.0, 10.0), (2.0, 20.0)],
            },
            Curve {
                name: "second".to_owned(),
                points: vec![(1.0, 1_000.0)],
            },
        ];
        for across in [Scale::Even, Scale::Logarithmic] {
            for up in [Scale::Even, Scale::Logarithmic] {
                curves(&path, words("a title"), across, up, &two).unwrap();
                let picture = std::fs::read_to_string(&path).unwrap();
                for text in ["a title", "requests/s", "first", "second", "</svg>"] {
                    assert!(picture.contains(text), "{text} is missing: {picture}");
                }
                assert_eq!(picture.matches("<circle").count(), 3);
            }
        }
    }

    #[test]
    fn bars_carry_names_and_medians() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bars.svg");
        let bar = |name: &str, median: f64| Bar {
            name: name.to_owned(),
            value: Spread {
                median,
                low: median * 0.9,
                high: median * 1.1,
            },
        };
        for count in 1..4 {
            let all = [bar("slow", 5.0), bar("quick", 41_200.0), bar("odd", 0.02)];
            for scale in [Scale::Even, Scale::Logarithmic] {
                super::bars(&path, "rates", "orders/s", scale, &all[..count]).unwrap();
                let picture = std::fs::read_to_string(&path).unwrap();
                for bar in &all[..count] {
                    assert!(
                        picture.contains(&bar.name),
                        "{} of {count}: {picture}",
                        bar.name
                    );
                }
            }
        }
        assert!(std::fs::read_to_string(&path).unwrap().contains("41.2k"));
    }

    #[test]
    fn a_picture_of_nothing_is_refused() {
        let path = Path::new("/nowhere/at/all.svg");
        assert!(curves(path, words(""), Scale::Even, Scale::Even, &[]).is_err());
        assert!(bars(path, "", "", Scale::Even, &[]).is_err());
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.02, "0.02"),
            (1.5, "1.5"),
            (41_234.0, "41.2k"),
            (1_000.0, "1k"),
            (250.0, "250"),
            (10_000_000.0, "10M"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
