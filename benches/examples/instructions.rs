//! Instructions a packet, or an entry, of every row that is the same on each run, counted by callgrind and compared with the recorded
//! counts: `cargo run --profile bench -p benches --example instructions`, with `--update` to record.
//!
//! Only timed sections are counted. Exits 5 where a row takes more than 3 % (and a tenth of an instruction) above its record, 3 without
//! valgrind. Counts depend on the compiler: where its version differs from the recorded one, that is said.

use benches::kernel::{self, Kernel};
use benches::measure::Row;
use benches::rings::{self, Ours};
use benches::{loops, measure};
use core::fmt::Write as _;
use std::process::{Command, ExitCode};
use std::{env, fs};

/// Timed sections counted of each row.
const SECTIONS: u64 = 256;
/// How far a count may be above its record.
const TOLERANCE: f64 = 0.03;
/// Below, in instructions, a difference is rounding.
const ROUNDING: f64 = 0.1;
const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");

fn rows() -> Vec<Row> {
    let mut rows = rings::bare("ours", |first| {
        let rings = kernel::plain(first);
        Some((Ours::new(rings), Kernel::new(rings)))
    });
    rows.iter_mut().for_each(|row| row.name.insert_str(0, "ring/"));
    let mut owning = rings::owning("ours", || {
        let rings = kernel::plain(0);
        (rings::our_port(rings::umem(), rings), Kernel::new(rings))
    });
    owning.iter_mut().for_each(|row| row.name.insert_str(0, "ring+ownership/"));
    let mut turns = loops::rows();
    turns.iter_mut().for_each(|row| row.name.insert_str(0, "worker/"));
    rows.extend(owning);
    rows.extend(turns);
    // A burst of one, one of 64, and what has no bursts; where packets lie makes no difference to instructions.
    let burst = |row: &Row| row.name.rsplit('/').find_map(|part| part.parse::<u32>().ok());
    rows.retain(|row| matches!(burst(row), None | Some(1 | 64)) && !row.name.contains("cold"));
    rows
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--row", name] => run(name),
        [] => compare(false),
        ["--update"] => compare(true),
        _ => {
            eprintln!("usage: instructions [--update]");
            ExitCode::from(2)
        }
    }
}

/// What callgrind watches.
fn run(name: &str) -> ExitCode {
    let Some(row) = rows().into_iter().find(|row| row.name == name) else { return ExitCode::from(2) };
    let mut rig = (row.rig)();
    (0..SECTIONS).for_each(|_| {
        rig();
    });
    println!("sections {}", measure::sections());
    ExitCode::SUCCESS
}

/// Instructions a packet of one row.
fn count(row: &Row) -> Result<f64, String> {
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--toggle-collect=*benches*measure*timed*",
        ])
        .arg(env::current_exe().map_err(|error| error.to_string())?)
        .args(["--row", &row.name])
        .output()
        .map_err(|error| format!("valgrind cannot be run: {error}; install it (apt-get install valgrind)"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected :")?.1.trim().replace(',', "").parse::<f64>().ok());
    let sections = String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| line.strip_prefix("sections ")?.parse::<f64>().ok());
    match (collected, sections) {
        (Some(collected), Some(sections)) if collected > 0.0 => Ok(collected / sections / row.packets as f64),
        _ => Err(format!("{}: nothing was counted; valgrind said:\n{said}", row.name)),
    }
}

fn compare(update: bool) -> ExitCode {
    let compiler = Command::new("rustc")
        .arg("-V")
        .output()
        .map_or_else(|_| "?".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_string());
    let record = fs::read_to_string(RECORD).unwrap_or_default();
    let recorded = |name: &str| -> Option<f64> {
        record.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    };
    let recorded_by = record.lines().find_map(|line| line.strip_prefix("# compiler: ")).unwrap_or("?");
    let mut new = format!(
        "# Instructions a packet, or an entry; made by `instructions --update`.\n# compiler: {compiler}\n"
    );
    let mut worse = 0;
    for row in rows() {
        let count = match count(&row) {
            Ok(count) => count,
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::from(3);
            }
        };
        let _ = writeln!(new, "{:<44} {count:>9.2}", row.name);
        let before = recorded(&row.name);
        let above = before.is_none_or(|before| count > before * (1.0 + TOLERANCE) + ROUNDING);
        let note = match before {
            _ if update => String::new(),
            None => "  NOT RECORDED".into(),
            Some(before) if above => {
                format!("  ABOVE {before:.2} by {:.1} %", 100.0 * (count / before - 1.0))
            }
            Some(before) => format!("  {:+.1} %", 100.0 * (count / before - 1.0)),
        };
        println!("{:<44} {count:>9.2}{note}", row.name);
        worse += u32::from(above && !update);
    }
    if update {
        return match fs::write(RECORD, new) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{RECORD}: {error}");
                ExitCode::FAILURE
            }
        };
    }
    if worse > 0 {
        if recorded_by != compiler {
            println!(
                "recorded by {recorded_by}, counted by {compiler}: where that is all, record anew, in a commit of its own"
            );
        }
        println!(
            "{worse} rows are above their record by more than 3 %: make them fast again, or record anew (--update) and say why"
        );
        return ExitCode::from(5);
    }
    ExitCode::SUCCESS
}
