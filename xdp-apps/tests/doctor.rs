//! `xdp-apps doctor` and `contract`, as programs. What needs a namespace says that it is skipped without the privilege.

#![cfg(feature = "cli")]

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use core::time::Duration;
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

/// Whether `value` is what `schema` describes, for the words that our schema uses; any other is an error, so that none is
/// believed to be checked that is not.
fn fits(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let fail = |what: String| Err(format!("{at}: {what}"));
    for (word, rule) in schema.as_object().ok_or("a schema is an object")? {
        match word.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" => (),
            "$ref" => {
                let pointer = rule.as_str().and_then(|name| name.strip_prefix('#')).ok_or("a local $ref")?;
                fits(root, root.pointer(pointer).ok_or("a $ref to something")?, value, at)?;
            }
            "type" => {
                let is = |name: &Value| match name.as_str() {
                    Some("object") => value.is_object(),
                    Some("array") => value.is_array(),
                    Some("string") => value.is_string(),
                    Some("boolean") => value.is_boolean(),
                    Some("null") => value.is_null(),
                    Some("number") => value.is_number(),
                    Some("integer") => value.is_u64() || value.is_i64(),
                    _ => panic!("no type {name}"),
                };
                if !rule.as_array().map_or_else(|| is(rule), |names| names.iter().any(is)) {
                    return fail(format!("not of type {rule}"));
                }
            }
            "const" if value != rule => return fail(format!("not {rule}")),
            "enum" if !rule.as_array().ok_or("a list")?.contains(value) => {
                return fail(format!("not one of {rule}"));
            }
            "minimum" if value.is_number() && value.as_f64() < rule.as_f64() => {
                return fail(format!("below {rule}"));
            }
            "const" | "enum" | "minimum" => (),
            "oneOf" => {
                let all = rule.as_array().ok_or("a list")?.iter();
                let results: Vec<_> = all.map(|one| fits(root, one, value, at)).collect();
                if results.iter().filter(|result| result.is_ok()).count() != 1 {
                    return fail(format!("not exactly one of {results:?}"));
                }
            }
            "required" => {
                let missing = |name: &&Value| name.as_str().is_none_or(|name| value.get(name).is_none());
                if let Some(name) = rule.as_array().ok_or("a list")?.iter().find(missing) {
                    return fail(format!("{name} is missing"));
                }
            }
            "properties" => {
                for (name, inner) in value.as_object().into_iter().flatten() {
                    if let Some(rule) = rule.get(name) {
                        fits(root, rule, inner, &format!("{at}/{name}"))?;
                    }
                }
            }
            "additionalProperties" => {
                assert_eq!(*rule, json!(false));
                let known = |name: &str| schema["properties"].get(name).is_some();
                let mut names = value.as_object().into_iter().flat_map(|all| all.keys());
                if let Some(name) = names.find(|name| !known(name)) {
                    return fail(format!("{name} is not a word of it"));
                }
            }
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    fits(root, rule, item, &format!("{at}/{n}"))?;
                }
            }
            word => panic!("the check does not know {word}"),
        }
    }
    Ok(())
}
