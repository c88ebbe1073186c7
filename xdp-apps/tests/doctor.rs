//! `xdp-apps doctor` and `contract`, as programs. What needs a namespace says that it is skipped without the privilege.

#![cfg(feature = "cli")]

mod schema;

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use core::time::Duration;
use schema::check as fits;
use serde_json::{Value, json};
use std::process::{Command, Output};
use xdp_core::cpu::{self, Cap};
use xdp_core::netdev::{End, Interface, Namespace, NewLink};

const SCHEMA: &str = include_str!("../schema/doctor.json");

fn apps(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xdp-apps"));
    // what a user's environment says is none of the test's business
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("XDP_APPS_")) {
        command.env_remove(name);
    }
    command.args(args).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(output)))
}

fn privileged() -> bool {
    let missing = cpu::missing(&[Cap::NetAdmin, Cap::NetRaw, Cap::SysAdmin, Cap::Bpf]).unwrap();
    if !missing.is_empty() {
        println!("skipped: without {missing:?}");
    }
    missing.is_empty()
}

/// A namespace under a name of its own with the ends `va` and `vb` of a pair, up.
fn veth() -> (String, Namespace) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("xdp-doctor-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
    let namespace = Namespace::create_named(&name).unwrap();
    let make = || {
        let ends = NewLink::veth(End::new("va"), End::new("vb")).create_pair()?;
        for end in &ends {
            end.set_ipv6_autoconfigured(false)?;
            end.set_up(true)?;
        }
        ends[0].wait_operational(Duration::from_secs(5))
    };
    namespace.run(make).unwrap().unwrap();
    (name, namespace)
}

/// The line of a check in a document.
fn check<'a>(document: &'a Value, name: &str) -> &'a Value {
    let checks = document["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {document}"))
}

#[test]
fn the_document_fits_its_schema_and_the_schema_can_say_no() {
    let document = document(&apps(&["doctor", "--noise", "50ms", "--json"]));
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let fits = |document: &Value| fits(&schema, &schema, document, "");
    assert_eq!(fits(&document), Ok(()));
    assert!(document["noise"]["spun_s"].as_f64().unwrap() >= 0.05);
    assert_eq!(check(&document, "noise")["area"], format!("core {}", document["core"]));
    let checks = document["checks"].as_array().unwrap();
    let worst = ["fail", "warn", "ok"]
        .into_iter()
        .find(|verdict| checks.iter().any(|check| check["verdict"] == *verdict));
    assert_eq!(document["verdict"].as_str(), worst);
    for amiss in checks.iter().filter(|check| check["verdict"] != "ok") {
        assert!(amiss["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{amiss}");
    }
    for (at, value) in [
        ("/verdict", json!("good")),
        ("/core", json!(-1)),
        ("/checks/0/remedy", json!(7)),
        ("/noise/spun_s", json!("long")),
        ("/schema", json!("xdp-apps-doctor/0")),
    ] {
        let mut broken = document.clone();
        *broken.pointer_mut(at).unwrap() = value;
        assert!(fits(&broken).unwrap_err().contains(&at[..4]), "{at}: {:?}", fits(&broken));
    }
    let mut other = document.clone();
    other["color"] = json!(1);
    assert_eq!(fits(&other), Err(": color is not a word of it".to_string()));
    other = document;
    other.as_object_mut().unwrap().remove("can");
    assert_eq!(fits(&other), Err(": \"can\" is missing".to_string()));
}

#[test]
fn on_a_veth_it_says_that_busy_polling_and_coalescing_cannot_take_effect() {
    if !privileged() {
        return;
    }
    let (name, namespace) = veth();
    let document = document(&apps(&["doctor", "--netns", &name, "--iface", "va", "--noise", "0", "--json"]));
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    assert_eq!(fits(&schema, &schema, &document, ""), Ok(()));
    let coalescing = check(&document, "coalescing")["found"].as_str().unwrap();
    assert!(coalescing.contains("cannot take effect: coalescing not supported by va"), "{coalescing}");
    let contract = &document["contracts"][0];
    if cpu::kernel_version() >= (6, 15) {
        let busy = check(&document, "busy polling")["found"].as_str().unwrap();
        assert!(busy.contains("cannot take effect") && busy.contains("SO_INCOMING_NAPI_ID is 0"), "{busy}");
        assert_eq!(contract["busy_poll_effective"], json!(false));
    }
    assert_eq!((&contract["zero_copy"], &contract["need_wakeup"]), (&json!(false), &json!("constant")));
    assert!(contract["kick_completed_us"].is_u64(), "{contract}");
    assert!(document["cannot"].to_string().contains("measure zero-copy on va queue 0"));
    assert_eq!(document["noise"], Value::Null);
    let va = namespace.run(|| Interface::named("va").unwrap()).unwrap();
    assert!(!va.xdp.any() && va.up, "as it was");
}

#[test]
fn an_interface_that_the_host_hangs_on_is_only_read_unless_forced() {
    if !privileged() {
        return;
    }
    let (name, namespace) = veth();
    let run = |more: &[&str]| {
        let args = ["doctor", "--netns", &name, "--iface", "va", "--noise", "0", "--json"];
        document(&apps(&[&args[..], more].concat()))
    };
    let address = || Interface::named("va")?.add_address("198.18.9.1".parse().unwrap(), 24);
    namespace.run(address).unwrap().unwrap();
    let read = run(&[]);
    assert!(check(&read, "probes")["found"].as_str().unwrap().contains("198.18.9.1"), "{read}");
    assert_eq!(read["contracts"], json!([]));
    let route = || Interface::named("va")?.add_route("0.0.0.0".parse().unwrap(), 0, None);
    namespace.run(route).unwrap().unwrap();
    let read = run(&[]);
    assert_eq!(check(&read, "guard")["verdict"], "warn");
    assert!(check(&read, "probes")["found"].as_str().unwrap().contains("default route"), "{read}");
    assert_eq!(read["contracts"], json!([]));
    assert_eq!(run(&["--force"])["contracts"].as_array().unwrap().len(), 1);
    let refused = apps(&["contract", "--netns", &name, "--iface", "va"]);
    assert_eq!(refused.status.code(), Some(3), "{}", text(&refused));
    assert!(text(&refused).contains("default route"), "{}", text(&refused));
}

#[test]
fn a_contract_with_a_peer_receives_too() {
    if !privileged() {
        return;
    }
    let (name, _namespace) = veth();
    let place = ["contract", "--netns", &name, "--iface", "va", "--peer", "vb", "--peer-netns", &name];
    let found = document(&apps(&[&place[..], &["--json"]].concat()));
    assert_eq!(found["pieces_in_2048_byte_chunks"], json!([1514]));
    let output = apps(&place);
    assert_eq!(output.status.code(), Some(0));
    let shown = text(&output);
    assert!(
        shown.contains("va queue 0, veth") && shown.contains("1514 bytes arrive in one piece"),
        "{shown}"
    );
}

#[test]
fn a_link_that_is_down_fails_and_what_is_not_there_is_a_usage_error() {
    let output = apps(&["doctor", "--iface", "nosuch0", "--noise", "0"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("nosuch0"), "{}", text(&output));
    assert_eq!(apps(&["doctor", "--cpu", "8000", "--noise", "10ms"]).status.code(), Some(2));
    let strict = apps(&["doctor", "--noise", "0", "--strict", "--json"]);
    let expected = if document(&strict)["verdict"] == "ok" { 0 } else { 3 };
    assert_eq!(strict.status.code(), Some(expected));
    if !privileged() {
        return;
    }
    let (name, namespace) = veth();
    namespace.run(|| Interface::named("va").unwrap().set_up(false)).unwrap().unwrap();
    let output = apps(&["doctor", "--netns", &name, "--iface", "va", "--noise", "0"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("-> sudo ip link set va up"), "{}", text(&output));
}
