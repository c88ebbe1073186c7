//! Report: what became of a run, as text or as the one JSON document of all commands.
#![forbid(unsafe_code)]

use super::args::Run;
use super::conduct::Outcome;
use super::failure::Failure;
use super::out;
use super::plan::Plan;
use super::units::thousands;
use crate::session::{PortReport, WorkerReport};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use xdp_apps::results::{Document, Host, Row, RttUs};
use xdp_core::{Clock, Counters, State};

/// Prints it: a document with `--json`, else text.
pub(crate) fn print<T>(plan: &Plan, run: &Run, outcome: &Outcome<T>) -> Result<(), Failure> {
    out::print(if run.json { json(outcome) } else { text(plan, run, outcome) })
}

/// A document whose rows have a command's own counts beside the words of all.
#[derive(Serialize)]
struct Extended<'d> {
    schema: &'d str,
    version: &'d str,
    host: &'d Host,
    rows: Vec<ExtendedRow<'d>>,
}

#[derive(Serialize)]
struct ExtendedRow<'d> {
    #[serde(flatten)]
    row: &'d Row,
    #[serde(flatten)]
    extras: BTreeMap<&'d str, u64>,
}

fn json<T>(outcome: &Outcome<T>) -> String {
    let Document { schema, version, .. } = Document::new(outcome.host.clone());
    let rows = outcome.rows.iter().zip(&outcome.extras);
    let rows =
        rows.map(|(row, extras)| ExtendedRow { row, extras: extras.iter().copied().collect() }).collect();
    let document = Extended { schema, version, host: &outcome.host, rows };
    serde_json::to_string_pretty(&document).expect("words, numbers and lists of them")
}

fn text<T>(plan: &Plan, run: &Run, outcome: &Outcome<T>) -> String {
    let mut text = String::new();
    for ((worker, row), extras) in outcome.workers.iter().zip(&outcome.rows).zip(&outcome.extras) {
        let core = worker.core.map_or(String::new(), |core| format!(" on core {core}"));
        let _ = writeln!(text, "{} {}{core}: {}", plan.command, row.path, granted(plan, worker));
        match &row.ping {
            Some(ping) => {
                let _ = writeln!(
                    text,
                    "  {} sent, {} received, {} lost, {} duplicated, {} reordered, {} late{}",
                    thousands(row.sent),
                    thousands(row.received),
                    thousands(ping.lost),
                    thousands(ping.duplicated),
                    thousands(ping.reordered),
                    thousands(ping.late),
                    some(&[
                        ("damaged", ping.damaged),
                        ("overdue", ping.overdue),
                        ("foreign", ping.foreign),
                        ("samples lost", ping.samples_lost),
                    ]),
                );
                round_trips(&mut text, "round trip, us", ping.rtt_us.as_ref());
                if run.verbose {
                    round_trips(&mut text, "from sending, us", ping.rtt_from_sent_us.as_ref());
                }
            }
            None => {
                let _ = writeln!(
                    text,
                    "  {} received, {} sent, {} dropped in {:.3} s{}",
                    thousands(row.received),
                    thousands(row.sent),
                    thousands(worker.counters.received - worker.counters.forwarded()),
                    outcome.elapsed.as_secs_f64(),
                    some(extras),
                );
            }
        }
        let _ = writeln!(
            text,
            "  {} pps, {} system calls a packet, {}, {}",
            thousands(row.rate_pps.round() as u64),
            row.syscalls_per_packet.map_or("no".into(), |calls| format!("{calls:.3}")),
            cycles(&worker.counters, &outcome.clock),
            if worker.conserved { "every frame accounted for" } else { "FRAMES NOT ACCOUNTED FOR" },
        );
        if let Some(trouble) = trouble(worker) {
            let _ = writeln!(text, "  {trouble}");
        }
        if run.verbose {
            let _ = writeln!(text, "  {}", counters(&worker.counters));
        }
    }
    text
}

/// What the first socket got, in a line; what another one of the worker got only where that differs.
fn granted(plan: &Plan, worker: &WorkerReport) -> String {
    let of = |port: &PortReport| {
        let granted = &port.granted;
        let mode = plan.setup.program.as_ref().map_or("send only".into(), |(mode, _)| mode.to_string());
        let busy_poll = match (&granted.busy_poll, plan.setup.xsk.busy_poll) {
            (_, None) => "no busy polling".into(),
            (Ok(id), Some(_)) => format!("busy polling NAPI {id}"),
            (Err(why), Some(_)) => format!("busy polling without effect ({why})"),
        };
        format!(
            "{mode}, {}, {}, {busy_poll}, rings of {}",
            if granted.zero_copy { "zero-copy" } else { "copy" },
            if granted.need_wakeup { "need_wakeup" } else { "no need_wakeup" },
            granted.rings.rx,
        )
    };
    let first = of(&worker.ports[0]);
    let others = worker.ports[1..].iter().filter(|port| of(port) != first);
    others.fold(first.clone(), |text, port| format!("{text}; {}: {}", port.interface, of(port)))
}

/// Counts that are not zero, each after a comma.
fn some(counts: &[(&str, u64)]) -> String {
    let counted = counts.iter().filter(|(_, count)| *count > 0);
    counted.map(|(name, count)| format!(", {} {}", thousands(*count), name.replace('_', " "))).collect()
}

fn round_trips(text: &mut String, title: &str, rtt: Option<&RttUs>) {
    let Some(rtt) = rtt else { return };
    let RttUs { min, p50, p90, p99, p999, max, mean, .. } = rtt;
    let _ = writeln!(
        text,
        "  {title}: min {min:.1}, p50 {p50:.1}, p90 {p90:.1}, p99 {p99:.1}, p99.9 {p999:.1}, max {max:.1}, mean {mean:.1}"
    );
}

/// Where the sampled ticks went.
fn cycles(counters: &Counters, clock: &Clock) -> String {
    let cycles = &counters.cycles;
    if cycles.packets == 0 {
        return "no turn that received was sampled".into();
    }
    let each = |ticks: u64| clock.to_ns(ticks) as f64 / cycles.packets as f64;
    let all = (cycles.busy + cycles.idle + cycles.kick).max(1);
    format!(
        "{:.0} ns a packet and {:.0} in kicks, {} % idle (of {} turns sampled)",
        each(cycles.busy),
        each(cycles.kick),
        cycles.idle * 100 / all,
        thousands(cycles.turns),
    )
}

/// Everything that went wrong and was counted: drops with their reasons, ours and the kernel's.
fn trouble(worker: &WorkerReport) -> Option<String> {
    let counters = &worker.counters;
    let mut parts = vec![
        ("with no room to leave by (tx_full)".to_string(), counters.tx_full),
        ("to a port that is not there (no_such_port)".into(), counters.no_such_port),
        ("of our own without frame or room (refused)".into(), counters.refused),
        ("dropped by the device (kicks_dropped)".into(), counters.kicks_dropped),
        ("kicks of an interface that is down (kicks_down)".into(), counters.kicks_down),
        ("kicks that failed (kicks_failed)".into(), counters.kicks_failed),
        ("still on their way out".into(), worker.sending as u64),
    ];
    for port in &worker.ports {
        let at = format!("at {}:{}", port.interface, port.queue);
        let statistics = &port.statistics;
        parts.extend([
            (
                format!("dropped by the kernel {at}: too long for a chunk, or no chunk (rx_dropped)"),
                statistics.rx_dropped,
            ),
            (format!("dropped by the kernel {at}: rx ring full (rx_ring_full)"), statistics.rx_ring_full),
            (format!("refused by the kernel {at} (tx_invalid_descs)"), statistics.tx_invalid_descs),
        ]);
    }
    let mut told: Vec<_> = parts
        .into_iter()
        .filter(|(_, n)| *n > 0)
        .map(|(what, n)| format!("{} {what}", thousands(n)))
        .collect();
    for port in worker.ports.iter().filter(|port| port.state != State::Up) {
        let state = if port.state == State::Gone { "gone" } else { "down" };
        told.push(format!("{} is {state}", port.interface));
    }
    (!told.is_empty()).then(|| told.join("; "))
}

/// Every counter by its name.
fn counters(counters: &Counters) -> String {
    let Counters {
        turns,
        turns_idle,
        received,
        dropped,
        originated,
        finished,
        kicks,
        kicks_again,
        sleeps,
        ..
    } = counters;
    let named = [
        ("turns", turns),
        ("turns_idle", turns_idle),
        ("received", received),
        ("forwarded", &counters.forwarded()),
        ("dropped", dropped),
        ("tx_full", &counters.tx_full),
        ("no_such_port", &counters.no_such_port),
        ("originated", originated),
        ("refused", &counters.refused),
        ("finished", finished),
        ("kicks", kicks),
        ("kicks_again", kicks_again),
        ("kicks_dropped", &counters.kicks_dropped),
        ("kicks_down", &counters.kicks_down),
        ("kicks_failed", &counters.kicks_failed),
        ("sleeps", sleeps),
    ];
    let named: Vec<_> = named.iter().map(|(name, count)| format!("{name} {}", thousands(**count))).collect();
    named.join(", ")
}
