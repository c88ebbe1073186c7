//! `demo` as a newcomer meets it: with and without privilege, stopped in the middle, killed.

#![cfg(feature = "cli")]
#![allow(clippy::std_instead_of_core, clippy::std_instead_of_alloc, reason = "a test, which has std")]

mod schema;

use serde_json::Value;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use xdp_core::cpu::{self, Cap};
use xdp_core::netdev::Namespace;

/// One at a time: what is left behind is told by what was there before.
static ALONE: Mutex<()> = Mutex::new(());

/// A state directory of this test's own, removed at the end.
struct State(PathBuf);

impl State {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("xdp-demo-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn demo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xdp-apps"));
        command.args(arguments).env("XDP_APPS_STATE", &self.0).stdin(Stdio::null());
        command
    }

    fn journals(&self) -> usize {
        std::fs::read_dir(&self.0).map_or(0, Iterator::count)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn is_privileged(test: &str) -> bool {
    let missing = cpu::missing(&[Cap::NetRaw, Cap::NetAdmin, Cap::Bpf, Cap::SysAdmin]).unwrap_or_default();
    if !missing.is_empty() {
        eprintln!("skipped: {test} needs {missing:?}");
    }
    missing.is_empty()
}

/// Namespaces that a process with this id made.
fn namespaces_of(pid: u32) -> Vec<String> {
    let prefix = format!("xdp-{pid}-");
    Namespace::names().into_iter().filter(|name| name.starts_with(&prefix)).collect()
}

fn output(mut command: Command) -> (u32, Output) {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    (child.id(), child.wait_with_output().unwrap())
}

/// Waits until the demo of this process has its hosts, and a little longer: it is in the middle then.
fn in_the_middle(child: &Child) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while namespaces_of(child.id()).len() < 3 {
        assert!(Instant::now() < deadline, "no hosts after 20 s");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(700));
}

fn fits_the_schema(document: &Value) {
    let schema: Value = serde_json::from_str(include_str!("../schema/document.json")).unwrap();
    assert_eq!(schema::check(&schema, &schema, document, ""), Ok(()));
}

#[test]
fn four_paths_lose_nothing_and_leave_nothing() {
    let _alone = ALONE.lock();
    if !is_privileged("demo") {
        return;
    }
    let state = State::new("whole");
    let (pid, ran) = output(state.demo(&["demo", "--json", "--quiet", "--count", "1000", "--rate", "2000"]));
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!(ran.status.code(), Some(0), "{said}");
    let document: Value = serde_json::from_slice(&ran.stdout).unwrap();
    fits_the_schema(&document);
    let rows = document["rows"].as_array().unwrap();
    let paths: Vec<_> =
        rows.iter().map(|row| (row["path"].as_str().unwrap(), row["mode"].as_str().unwrap())).collect();
    assert_eq!(paths, [("A-B", "native"), ("A-B-C", "native"), ("A-B", "skb"), ("A-B-C", "skb")]);
    for row in rows {
        assert_eq!(row["transport"], "af_xdp");
        assert_eq!(
            (&row["sent"], &row["received"], &row["lost"]),
            (&1000.into(), &1000.into(), &0.into()),
            "{row}"
        );
        assert_eq!((&row["duplicated"], &row["reordered"]), (&0.into(), &0.into()));
        assert_eq!(row["granted"]["zero_copy"], false, "veth has none");
        assert_eq!(row["granted"]["busy_poll"]["effective"], false);
        assert!(row["granted"]["busy_poll"]["why"].as_str().unwrap().contains("NAPI"));
        assert!(row["rtt_us"]["min"].as_f64().unwrap() > 0.5);
        let workers = row["workers"].as_array().unwrap();
        assert_eq!(workers.len(), if row["path"] == "A-B" { 2 } else { 3 });
        assert!(workers.iter().all(|worker| worker["conserved"] == true), "{row}");
    }
    assert!(document["baseline"]["icmp_rtt_us"]["p50"].as_f64().unwrap() > 0.5);
    assert_eq!((namespaces_of(pid), state.journals()), (vec![], 0));
}

#[test]
fn one_mode_alone_and_a_table() {
    let _alone = ALONE.lock();
    if !is_privileged("demo") {
        return;
    }
    let state = State::new("table");
    let (_, ran) = output(state.demo(&["demo", "-q", "--mode", "skb", "--count", "200", "--rate", "2000"]));
    let table = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert_eq!(ran.status.code(), Some(0), "{table}");
    for part in ["granted", "A-B-C", "skb", "kernel ping", "how they spread", "no: copy"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    assert!(!table.contains("native"), "{table}");
}

#[test]
fn ctrl_c_ends_it_with_130_and_leaves_nothing() {
    let _alone = ALONE.lock();
    if !is_privileged("demo") {
        return;
    }
    let state = State::new("interrupted");
    let child = state.demo(&["demo", "--json", "--quiet"]).stdout(Stdio::piped()).spawn().unwrap();
    in_the_middle(&child);
    let pid = child.id();
    assert!(Command::new("kill").args(["-INT", &pid.to_string()]).status().unwrap().success());
    let ran = child.wait_with_output().unwrap();
    assert_eq!(ran.status.code(), Some(130));
    let document: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert!(document["rows"][0]["sent"].as_u64().unwrap() < 20_000, "what was measured until then is told");
    assert_eq!((namespaces_of(pid), state.journals()), (vec![], 0));
}

#[test]
fn what_a_killed_demo_leaves_is_put_back_by_restore() {
    let _alone = ALONE.lock();
    if !is_privileged("demo") {
        return;
    }
    let state = State::new("killed");
    let mut child = state.demo(&["demo", "--quiet"]).stdout(Stdio::null()).spawn().unwrap();
    in_the_middle(&child);
    child.kill().unwrap();
    child.wait().unwrap();
    let pid = child.id();
    assert_eq!(
        (namespaces_of(pid).len(), state.journals()),
        (3, 1),
        "SIGKILL leaves names, and a record of them"
    );
    let (_, ran) = output(state.demo(&["restore", "--yes"]));
    assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!((namespaces_of(pid), state.journals()), (vec![], 0));
}

#[test]
fn the_next_run_says_what_a_killed_one_left_or_puts_it_back_if_told_to() {
    let _alone = ALONE.lock();
    if !is_privileged("demo") {
        return;
    }
    let state = State::new("next");
    let mut child = state.demo(&["demo", "--quiet"]).stdout(Stdio::null()).spawn().unwrap();
    in_the_middle(&child);
    child.kill().unwrap();
    child.wait().unwrap();
    let pid = child.id();
    let next = ["demo", "--mode", "native", "--count", "20", "--rate", "1000"];
    let (_, ran) = output(state.demo(&next));
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(said.contains("xdp-apps restore"), "{said}");
    assert_eq!(
        (namespaces_of(pid).len(), state.journals()),
        (3, 1),
        "nobody was asked, so nothing was touched"
    );
    let (_, ran) = output(state.demo(&[&next[..], &["--yes"]].concat()));
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(said.contains("put back"), "{said}");
    assert_eq!((ran.status.code(), namespaces_of(pid), state.journals()), (Some(0), vec![], 0), "{said}");
}

#[test]
fn without_privilege_it_says_what_is_missing_and_runs_in_memory() {
    let _alone = ALONE.lock();
    let state = State::new("nobody");
    let mut command = state.demo(&["demo", "--json", "--quiet", "--count", "300", "--rate", "3000"]);
    if is_privileged("this as it is; as nobody then") {
        command.uid(65534).gid(65534);
        if !readable_by_all(Path::new(env!("CARGO_BIN_EXE_xdp-apps"))) {
            eprintln!("skipped: nobody may not run the binary where it is");
            return;
        }
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let ran = child.wait_with_output().unwrap();
    assert_eq!(ran.status.code(), Some(0), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("CAP_NET_RAW") && said.contains("SIMULATED"), "{said}");
    let document: Value = serde_json::from_slice(&ran.stdout).unwrap();
    fits_the_schema(&document);
    for (row, path) in document["rows"].as_array().unwrap().iter().zip(["A-B", "A-B-C"]) {
        assert_eq!((&row["path"], &row["transport"]), (&path.into(), &"memory".into()));
        assert_eq!((&row["received"], &row["lost"]), (&300.into(), &0.into()));
    }
}

#[test]
fn a_reader_who_has_read_enough_is_no_error() {
    let _alone = ALONE.lock();
    let state = State::new("pipe");
    for arguments in [
        &["demo", "-q", "--count", "50", "--rate", "5000", "--mode", "skb"][..],
        &["doctor", "--noise", "0"],
        &["restore", "--yes"],
        &["man"],
    ] {
        let mut child = state.demo(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take()); // before it has anything to say
        let ran = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(ran.status.code(), Some(0), "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
    }
}

/// Whether every folder above the binary lets anybody through, and the binary be run.
fn readable_by_all(binary: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    binary.ancestors().all(|path| path.metadata().is_ok_and(|meta| meta.permissions().mode() & 1 == 1))
}
