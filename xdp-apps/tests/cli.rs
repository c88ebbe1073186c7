//! What is typed wrongly, or cannot be: one line that says what, why and what to do, and the exit code of that kind of reason.

mod common;

use common::{Host, PROGRAM, Running, alone_and_privileged, program, run, wire};
use core::time::Duration;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use xdp_core::cpu;
use xdp_core::netdev::change::CreateNamespace;
use xdp_core::netdev::journal::Journal;

const USAGE: i32 = 2;
const ENVIRONMENT: i32 = 3;
const NOBODY: u32 = 65_534;

#[test]
fn malformed_options_are_refused_with_how_to_write_them() {
    for (arguments, parts) in [
        (&["drop", "--iface", "lo", "--ring-size", "2x"][..], &["--ring-size", "write it as 2048"][..]),
        (&["drop", "--iface", "lo", "--duration", "soon"], &["`soon` is no duration", "10us"]),
        (&["drop", "--iface", "lo", "--count", "1.5"], &["`1.5` is no whole number"]),
        (&["drop", "--iface", "lo", "--queues", "3-1"], &["`3-1` names no queues", "0-3"]),
        (&["drop", "--iface", "lo", "--mode", "fast"], &["`fast` is no mode; say native or skb"]),
        (&["drop", "--iface", "lo", "--match", "udp portt 9"], &["--match", "portt"]),
        (&["drop", "--iface", "a/b"], &["cannot name an interface"]),
        (&["drop", "--iface", "lo", "--copy", "--zero-copy=require"], &["cannot be used with"]),
        (&["drop", "--iface", "lo", "--zero-copy=maybe"], &["require, prefer"]),
        (&["drop", "--ifcae", "lo"], &["--ifcae", "--iface"]),
        (&["drop"], &["required", "--iface"]),
        (&["fly"], &["unrecognized subcommand 'fly'"]),
        (&["ping", "--iface", "lo", "--vlan", "4095"], &["--vlan"]),
        (&["ping", "--iface", "lo", "--interval", "1ms", "--rate", "5"], &["cannot be used with"]),
        (&["man", "fly"], &["no such command; there are: ping"]),
    ] {
        run(arguments).failed(USAGE, parts);
    }
}

#[test]
fn a_plan_that_cannot_work_is_refused_before_anything_is_touched() {
    for (arguments, parts) in [
        (&["drop", "--iface", "lo", "--ring-size", "3000"][..], &["power of two", "take 4096"][..]),
        (&["drop", "--iface", "lo", "--ring-size", "64", "--tx-budget", "65"], &["32 to the ring's 64"]),
        (&["drop", "--iface", "lo", "--chunk-size", "3000"], &["3000"]),
        (
            &["drop", "--iface", "lo", "--chunk-size", "2048"],
            &["does not fit a chunk of 2048", "--chunk-size 4096"],
        ),
        (&["drop", "--iface", "lo", "--cpu", "4000"], &["core 4000", "choose among"]),
        (&["drop", "--iface", "lo", "--queues", "7"], &["lo queue 7: no such queue; it has 1, number 0"]),
        (&["drop", "--iface", "nope0"], &["nope0: no such interface here; there are: ", "lo"]),
        (&["drop", "--iface", "lo", "--netns", "nope"], &["nope: ENOENT; there are: "]),
        (&["forward", "--iface", "lo"], &["forward needs two sides"]),
        (&["forward", "--iface", "lo", "--iface", "lo"], &["lo queue 0 is named twice"]),
    ] {
        run(&[arguments, &["--dry-run"]].concat()).failed(USAGE, parts);
    }
}

#[test]
fn help_version_completions_and_manual_are_printed() {
    for (arguments, part) in [
        (&["--help"][..], "Exit codes: 0 done, 1 run-time error"),
        (&["--version"], "xdp-apps 0."),
        (&["ping", "--help"], "Examples:\n  xdp-apps ping --iface eth1"),
        (&["completions", "bash"], "complete -F _xdp__apps"),
        (&["man"], ".TH xdp-apps 1"),
        (&["man", "forward"], "between two interfaces"),
    ] {
        let ended = run(arguments);
        assert_eq!((ended.code, &ended.stderr[..]), (Some(0), ""), "{arguments:?}");
        assert!(ended.stdout.contains(part), "{arguments:?}: {}", ended.stdout);
    }
    for command in ["ping", "reflect", "forward", "drop", "generate", "restore"] {
        let ended = run(&[command, "--help"]);
        assert!(ended.stdout.contains("Example"), "{command} shows no example");
    }
}

#[test]
fn variables_stand_for_options() {
    let mut command = program(&["drop", "--iface", "lo", "--dry-run"]);
    command.env("XDP_APPS_RING_SIZE", "3000");
    let ended = Running::spawn(command, None).wait(Duration::from_secs(10));
    ended.failed(USAGE, &["--ring-size 3000"]);
}

/// The program where anybody may run it, gone with the value.
struct Public(PathBuf);

impl Public {
    fn new() -> Self {
        let directory = std::env::temp_dir().join(common::fresh("xdp-apps-test"));
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(PROGRAM, directory.join("xdp-apps")).unwrap();
        Self(directory)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.0.join("xdp-apps"));
        command.args(arguments).env_clear();
        command
    }
}

impl Drop for Public {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn without_privilege_the_capabilities_missing_and_how_to_get_them_are_one_line() {
    let Some(_alone) = alone_and_privileged() else { return };
    let (a, b) = (Host::new(), Host::new());
    let wire = wire(&a, &b, 1, 1500);
    let program = Public::new();
    // Started in the host's namespace, which it may not enter by itself.
    let ended = a.run(|| {
        let mut command = program.command(&["drop", "--iface", &wire.near.name]);
        command.uid(NOBODY).gid(NOBODY);
        Running::spawn(command, None).wait(Duration::from_secs(10))
    });
    ended.failed(
        ENVIRONMENT,
        &["no CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF", "sudo setcap cap_net_raw,cap_net_admin,cap_bpf+ep "],
    );
    // The plan can be seen all the same, with what is missing.
    let ended = a.run(|| {
        let mut command = program.command(&["drop", "--iface", &wire.near.name, "--dry-run"]);
        command.uid(NOBODY).gid(NOBODY);
        Running::spawn(command, None).wait(Duration::from_secs(10))
    });
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("missing: no CAP_NET_RAW"), "{ended:?}");
    let mut command = program.command(&["drop", "--iface", "lo", "--netns", a.name()]);
    command.uid(NOBODY).gid(NOBODY);
    let ended = Running::spawn(command, None).wait(Duration::from_secs(10));
    ended.failed(ENVIRONMENT, &["EPERM", "CAP_SYS_ADMIN"]);
}

#[test]
fn too_little_memory_to_lock_is_said_with_the_sum_and_the_limit() {
    let Some(_alone) = alone_and_privileged() else { return };
    let (a, b) = (Host::new(), Host::new());
    let wire = wire(&a, &b, 1, 1500);
    // Root without the two capabilities that lift the limit, and a limit.
    let mut command = Command::new("sh");
    let script = "ulimit -l 1024 && exec setpriv --bounding-set=-ipc_lock,-sys_resource \"$@\"";
    command.args(["-c", script, "sh", PROGRAM, "drop", "--netns", a.name(), "--iface", &wire.near.name]);
    let ended = Running::spawn(command, None).wait(Duration::from_secs(10));
    if ended.stderr.contains("setpriv: not found") || ended.stderr.contains("exec: setpriv") {
        println!("skipped: no setpriv(1) here");
        return;
    }
    ended.failed(
        ENVIRONMENT,
        &["lock 8320 KiB", "memory-lock limit is 1024 KiB", "ulimit -l", "CAP_IPC_LOCK"],
    );
}

#[test]
fn what_the_host_refuses_is_one_line_with_the_remedy() {
    let Some(_alone) = alone_and_privileged() else { return };
    let (a, b) = (Host::new(), Host::new());
    let pair = wire(&a, &b, 2, 1500);
    let near = &pair.near.name;
    let on_near =
        |arguments: &[&str]| run(&[&["drop", "--netns", a.name(), "--iface", near], arguments].concat());

    on_near(&["--queues", "2"]).failed(USAGE, &["queue 2: no such queue; it has 2, 0 to 1"]);
    on_near(&["--queues", "0-5"]).failed(USAGE, &["queue 2: no such queue"]);
    on_near(&["--zero-copy=require"])
        .failed(ENVIRONMENT, &["EOPNOTSUPP", "no zero-copy", "--zero-copy=prefer or --copy"]);
    run(&["drop", "--netns", a.name(), "--iface", "nope0"])
        .failed(USAGE, &["nope0: no such interface in namespace", "there are: ", near]);
    run(&["generate", "--netns", a.name(), "--iface", near])
        .failed(USAGE, &["no neighbour of that address", "--dst-mac"]);
    let ping = ["ping", "--netns", a.name(), "--iface", near, "--dst-mac", "02:00:00:00:00:02"];
    run(&[&ping[..], &["--packet-size", "40"]].concat()).failed(USAGE, &["--packet-size", "60"]);
    run(&[&ping[..], &["--packet-size", "1600"]].concat()).failed(USAGE, &["1518 bytes at most", "MTU 1500"]);
    run(&[&ping[..], &["--in-flight", "2048"]].concat()).failed(USAGE, &["rings of 2048 would overflow"]);
    on_near(&["--chunks", "100"]).failed(USAGE, &["2048 in tx rings + 1 in hand = 2050"]);

    a.run(|| pair.near.set_up(false)).unwrap();
    on_near(&[]).failed(1, &["it is down", "ip link set"]);
    a.run(|| pair.near.set_up(true)).unwrap();

    // A queue taken, and a program attached: by another process, and by another of ours.
    let holder = Running::start(&["drop", "--netns", a.name(), "--iface", near]);
    on_near(&["--queues", "1"]).failed(1, &["EBUSY", "xdp_redirect", "already attached", "end the process"]);
    on_near(&["--queues", "1", "--mode", "skb"]).failed(1, &["EEXIST", "already attached"]);
    let generate = ["generate", "--netns", a.name(), "--iface", near, "--dst-mac", "02:00:00:00:00:02"];
    run(&generate).failed(1, &["queue 0: EBUSY", "another socket has this queue", "take another queue"]);
    assert_eq!(holder.interrupt().code, Some(130));
    assert!(!a.has_program(&pair.near), "nothing stays behind of those that failed");
}

#[test]
fn an_mtu_too_large_for_the_chunk_or_the_mode_is_said_with_what_to_do() {
    let Some(_alone) = alone_and_privileged() else { return };
    let (a, b) = (Host::new(), Host::new());
    let large = wire(&a, &b, 1, 3600);
    let on_large = |arguments: &[&str]| {
        run(&[&["drop", "--netns", a.name(), "--iface", &large.near.name], arguments].concat())
    };
    on_large(&["--chunk-size", "2048"])
        .failed(USAGE, &["MTU 3600", "does not fit a chunk of 2048", "--chunk-size 4096"]);
    // It fits the chunk, but not a native program on a veth.
    on_large(&[]).failed(USAGE, &["ERANGE", "native", "mode skb"]);
    let running =
        Running::start(&["drop", "--netns", a.name(), "--iface", &large.near.name, "--mode", "skb"]);
    assert_eq!(running.interrupt().code, Some(130));
    let larger = wire(&a, &b, 1, 9000);
    run(&["drop", "--netns", a.name(), "--iface", &larger.near.name])
        .failed(USAGE, &["MTU 9000", "does not fit a chunk of 4096", "lower the MTU"]);
}

#[test]
fn an_interface_that_the_host_depends_on_is_left_alone() {
    let Some(_alone) = alone_and_privileged() else { return };
    let (a, b) = (Host::new(), Host::new());
    let wire = wire(&a, &b, 1, 1500);
    a.run(|| {
        wire.near.add_address("198.18.9.1".parse().unwrap(), 24).unwrap();
        wire.near.add_route("0.0.0.0".parse().unwrap(), 0, None).unwrap();
    });
    let arguments = ["drop", "--netns", a.name(), "--iface", &wire.near.name];
    run(&arguments).failed(USAGE, &["carries the default route", "--force"]);
    let forced = run(&[&arguments[..], &["--force", "--duration", "100ms"]].concat());
    assert_eq!(forced.code, Some(0), "{forced:?}");
}

#[test]
fn a_plan_is_printed_and_nothing_is_touched() {
    let Some(_alone) = alone_and_privileged() else { return };
    let (a, b) = (Host::new(), Host::new());
    let wire = wire(&a, &b, 2, 1500);
    let core = cpu::allowed().unwrap()[0].to_string();
    let arguments = [
        "reflect",
        "--netns",
        a.name(),
        "--iface",
        &wire.near.name,
        "--queues",
        "all",
        "--cpu",
        &core,
        "--dry-run",
        "--match",
        "udp port 9",
        "--count",
        "1M",
    ];
    let ended = run(&arguments);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for part in [
        "takes udp port 9",
        "worker 1: ",
        "queue 1 on core",
        "8,320 chunks of 2048",
        "1,000,000 packets",
        "share a core",
    ] {
        assert!(ended.stdout.contains(part), "no {part:?} in {}", ended.stdout);
    }
    let ended = run(&[&arguments[..], &["--json"]].concat());
    let plan: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(plan["workers"][1]["ports"][0]["queue"], 1);
    assert_eq!(plan["umem"]["chunks"], 8320);
    assert!(!a.has_program(&wire.near));
}

/// A directory for journals, gone with the value.
struct State(PathBuf);

impl State {
    fn new() -> Self {
        Self(std::env::temp_dir().join(common::fresh("xdp-apps-state")))
    }

    fn run(&self, arguments: &[&str]) -> common::Ended {
        let mut command = program(arguments);
        command.env("XDP_APPS_STATE", &self.0);
        Running::spawn(command, None).wait(Duration::from_secs(20))
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn restore_says_when_there_is_nothing_to_do() {
    let state = State::new();
    let ended = state.run(&["restore", "--yes"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("nothing to restore"));
}

#[test]
fn restore_puts_back_what_a_killed_run_left_and_others_mention_it() {
    let Some(_alone) = alone_and_privileged() else { return };
    let state = State::new();
    let name = common::fresh("xdp-test-left");
    // A journal whose process is gone: ours, under the name of a process that ended.
    let mut dead = Command::new("true").spawn().unwrap();
    let pid = dead.id();
    dead.wait().unwrap();
    {
        let mut journal = Journal::open_in(&state.0).unwrap();
        let made = journal.apply(CreateNamespace::new(&name)).unwrap();
        let ours = fs::read_dir(&state.0).unwrap().next().unwrap().unwrap().path();
        fs::copy(&ours, state.0.join(format!("{pid}-1.journal"))).unwrap();
        // What was made stays, as after a SIGKILL: neither is dropped.
        core::mem::forget((journal, made));
        fs::remove_file(ours).unwrap();
    }
    assert!(PathBuf::from("/run/netns").join(&name).exists());

    let listed = state.run(&["restore", "--dry-run"]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
    assert!(
        listed.stdout.contains(&format!("process {pid}:")) && listed.stdout.contains(&name),
        "{listed:?}"
    );
    state.run(&["restore"]).failed(USAGE, &["no terminal to ask on; say --yes"]);

    let (a, b) = (Host::new(), Host::new());
    let wire = wire(&a, &b, 1, 1500);
    let run = state.run(&["drop", "--netns", a.name(), "--iface", &wire.near.name, "--duration", "50ms"]);
    assert!(run.stderr.contains("`xdp-apps restore` puts it back"), "{run:?}");

    let restored = state.run(&["restore", "--yes"]);
    assert_eq!(restored.code, Some(0), "{restored:?}");
    assert!(restored.stdout.contains("done: "), "{restored:?}");
    assert!(!PathBuf::from("/run/netns").join(&name).exists());
    assert!(state.run(&["restore", "--yes"]).stdout.contains("nothing to restore"));
}
