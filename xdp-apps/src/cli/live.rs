//! Live: what a run does now, on the terminal's last line.
#![forbid(unsafe_code)]

use super::args::Run;
use super::conduct::Progress;
use super::plan::Limits;
use super::units::thousands;
use crate::session::Reading;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, stderr};
use std::time::Duration;

/// Between two looks where somebody watches: each takes a core for a moment.
const SHOWN: Duration = Duration::from_secs(1);
/// Where nobody does.
const UNSEEN: Duration = Duration::from_secs(3600);

/// A bar for a run with an end in packets, a line for one without; nothing where nobody looks.
pub(crate) struct Live {
    display: Display,
    progress: Progress,
    /// The last reading, and when it was taken.
    last: (Reading, Duration),
}

enum Display {
    /// Neither a terminal nor asked for.
    None,
    /// A line each time (`--verbose` into a file).
    Lines,
    Bar(ProgressBar),
    Line(ProgressBar),
}

impl Live {
    pub(crate) fn new(run: &Run, limits: Limits, progress: Progress) -> Self {
        let target = ProgressDrawTarget::stderr_with_hz(10);
        let display = match (run.quiet, stderr().is_terminal(), run.verbose, limits.count) {
            (true, ..) | (false, false, false, _) => Display::None,
            (false, false, true, _) => Display::Lines,
            (false, true, _, Some(count)) => {
                let style = ProgressStyle::with_template("{bar:30} {percent:>3}% {msg}")
                    .expect("a template that is right");
                Display::Bar(ProgressBar::with_draw_target(Some(count), target).with_style(style))
            }
            (false, true, _, None) => {
                let style = ProgressStyle::with_template("{msg}").expect("a template that is right");
                Display::Line(ProgressBar::with_draw_target(None, target).with_style(style))
            }
        };
        Self { display, progress, last: Default::default() }
    }

    /// How often to call [`show`](Self::show), at least.
    pub(crate) fn interval(&self) -> Duration {
        if matches!(self.display, Display::None) { UNSEEN } else { SHOWN }
    }

    /// Shows what was reached, a second after the last time or later.
    pub(crate) fn show(&mut self, now: Reading, elapsed: Duration) {
        if elapsed.saturating_sub(self.last.1) + Duration::from_millis(50) < SHOWN {
            return;
        }
        let text = line(&self.last, &now, elapsed);
        self.last = (now, elapsed);
        match &self.display {
            Display::None => (),
            Display::Lines => eprintln!("{text}"),
            Display::Bar(bar) => {
                bar.set_position(match self.progress {
                    Progress::Received => now.received,
                    Progress::Sent => now.sent,
                });
                bar.set_message(text);
            }
            Display::Line(bar) => {
                bar.set_message(text);
                bar.tick();
            }
        }
    }

    /// Clears what was shown.
    pub(crate) fn finish(self) {
        if let Display::Bar(bar) | Display::Line(bar) = self.display {
            bar.finish_and_clear();
        }
    }
}

fn line((last, then): &(Reading, Duration), now: &Reading, elapsed: Duration) -> String {
    let seconds = elapsed.saturating_sub(*then).as_secs_f64().max(1e-3);
    let rate = |now: u64, last: u64| thousands((now.saturating_sub(last) as f64 / seconds).round() as u64);
    let mut text = format!(
        "{:.0} s: {} pps in, {} pps out; {} received, {} sent",
        elapsed.as_secs_f64(),
        rate(now.received, last.received),
        rate(now.sent, last.sent),
        thousands(now.received),
        thousands(now.sent)
    );
    if now.overflowed > 0 {
        text += &format!(", {} had no room to leave by", thousands(now.overflowed));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_rates_since_the_last_one_and_totals() {
        let last = (Reading { received: 1000, sent: 500, overflowed: 0 }, Duration::from_secs(1));
        let now = Reading { received: 3000, sent: 1500, overflowed: 7 };
        assert_eq!(
            line(&last, &now, Duration::from_secs(3)),
            "3 s: 1,000 pps in, 500 pps out; 3,000 received, 1,500 sent, 7 had no room to leave by"
        );
    }
}
