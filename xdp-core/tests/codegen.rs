//! A turn is still one loop: read off the assembly, on x86-64.
//!
//! `codegen/turn.rs` is compiled as a release is (but for link-time optimization, so that each function keeps its name)
//! with assembly beside every crate. From the two turns in it every direct call and tail call is followed, through the
//! crates of this workspace and through landing pads. What is met on the way may be:
//!
//! - no locked instruction: no `lock` prefix, no `xchg` with memory; and no fence. The one exception is
//!   `kick_with_care`, which only zero-copy and busy-polling sockets enter, and which must be a function of its own;
//! - no indirect call, and no indirect jump but through a jump table of the function's own. A call through the global
//!   offset table by a symbol's name is a direct one, also where the address was loaded from there into a register before;
//! - no allocator;
//! - no function from outside the workspace but panics and unwinding (never reached), copies and fills of memory, and,
//!   for a socket, the wrappers of its own system calls.

#[path = "common/fixture.rs"]
mod fixture;

use fixture::Fixture;
use std::collections::{HashMap, HashSet};
use std::fs;

/// The functions of assembly text by their symbols.
#[derive(Default)]
struct Program {
    functions: HashMap<String, Vec<String>>,
}

/// What a function is made of, as far as the rules care.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    Locked(String),
    Fence(String),
    Indirect(String),
    Goes(String),
}

impl Program {
    fn read(&mut self, assembly: &str) {
        let mut inside: Option<String> = None;
        for line in assembly.lines() {
            let line = line.split('#').next().unwrap().trim_end();
            if let Some(symbol) = line.strip_suffix(':').filter(|label| !label.starts_with(".L")) {
                inside = Some(symbol.trim_matches('"').to_string());
                self.functions.insert(symbol.trim_matches('"').to_string(), vec![]);
            } else if line.trim_start().starts_with(".size") {
                inside = None;
            } else if let (Some(symbol), true) = (&inside, line.starts_with('\t') && !line.starts_with("\t."))
            {
                self.functions.get_mut(symbol).unwrap().push(line.trim().replace('\t', " "));
            }
        }
    }

    /// The one function whose symbol has `part` in it.
    fn named(&self, part: &str) -> &str {
        let mut found = self.functions.keys().filter(|symbol| symbol.contains(part));
        let one = found.next().unwrap_or_else(|| panic!("no function has {part} in its name"));
        assert_eq!(found.next(), None, "{part} names several");
        one
    }

    fn look(&self, symbol: &str) -> Option<Vec<Found>> {
        let lines = self.functions.get(symbol)?;
        let has_table = lines.iter().any(|line| line.contains(".LJTI"));
        let judged = lines.iter().enumerate().filter_map(|(at, line)| match judge(line, has_table) {
            Some(Found::Indirect(line)) => Some(match loaded(&lines[..at], &line) {
                Some(symbol) => Found::Goes(symbol),
                None => Found::Indirect(line),
            }),
            found => found,
        });
        Some(judged.collect())
    }

    /// Everything reached from a function that breaks a rule, each with where it is.
    fn broken(&self, from: &str, allowed: &[&str]) -> Vec<String> {
        let (mut to_do, mut seen, mut broken) = (vec![from.to_string()], HashSet::new(), vec![]);
        while let Some(symbol) = to_do.pop() {
            if !seen.insert(symbol.clone()) {
                continue;
            }
            if symbol == "free" || ALLOCATORS.iter().any(|part| symbol.contains(part)) {
                broken.push(format!("{symbol}: allocates"));
            } else if NEVER_REACHED.iter().any(|part| symbol.contains(part))
                || HARMLESS.iter().chain(allowed).any(|name| symbol == *name)
            {
                // and not followed
            } else if let Some(found) = self.look(&symbol) {
                for found in found {
                    match found {
                        Found::Goes(to) => to_do.push(to),
                        Found::Fence(_) | Found::Locked(_) if symbol.contains("kick_with_care") => {}
                        other => broken.push(format!("{symbol}: {other:?}")),
                    }
                }
            } else {
                broken.push(format!("{symbol}: what is it?"));
            }
        }
        broken
    }
}

const ALLOCATORS: &[&str] = &[
    "__rust_alloc",
    "__rust_dealloc",
    "__rust_realloc",
    "__rust_no_alloc",
    "malloc",
    "calloc",
    "raw_vec",
    "alloc..alloc",
];
const NEVER_REACHED: &[&str] =
    &["core9panicking", "core6option", "core6result", "slice5index", "_Unwind_Resume"];
const HARMLESS: &[&str] = &["memcpy", "memmove", "memset", "memcmp", "bcmp"];
/// The calls of a kick (setsockopt where a driver has to be worked round), and what turns their results into an errno.
const SYSTEM_CALLS: &[&str] = &["sendto", "recv", "setsockopt", "__errno_location"];

/// What one instruction means for the rules; `None` for most.
fn judge(line: &str, has_table: bool) -> Option<Found> {
    let line = line.trim();
    let (mnemonic, operands) = line.split_once(' ').unwrap_or((line, ""));
    let through_memory = operands.contains('(');
    match mnemonic {
        _ if mnemonic.starts_with("lock") => Some(Found::Locked(line.to_string())),
        _ if mnemonic.starts_with("xchg") && through_memory => Some(Found::Locked(line.to_string())),
        "mfence" | "sfence" | "lfence" => Some(Found::Fence(line.to_string())),
        "call" | "callq" | "jmp" | "jmpq" => {
            let calls = mnemonic.starts_with("call");
            match operands.strip_prefix('*') {
                Some(target) => match target.split_once("@GOTPCREL") {
                    Some((symbol, _)) => Some(Found::Goes(symbol.trim_matches('"').to_string())),
                    None if !calls && !through_memory && has_table => None,
                    None => Some(Found::Indirect(line.to_string())),
                },
                None if operands.starts_with(".L") => None,
                None => {
                    let symbol = operands.split('@').next().unwrap();
                    Some(Found::Goes(symbol.trim_matches('"').to_string()))
                }
            }
        }
        _ => None,
    }
}

/// The symbol that a call through a register calls: the last instruction before it that writes the register loads that
/// symbol's address from the global offset table, as compilers do ahead of a loop.
fn loaded(before: &[String], call: &str) -> Option<String> {
    let register = call.strip_prefix("callq *%")?;
    let end = format!(", %{register}");
    let load = before.iter().rev().find(|line| line.ends_with(&end))?.strip_prefix("movq ")?;
    let (symbol, rest) = load.split_once("@GOTPCREL(%rip)")?;
    (rest == end).then(|| symbol.trim_matches('"').to_string())
}

#[test]
fn a_turn_locks_nothing_calls_nobody_indirectly_and_allocates_nothing() {
    if !cfg!(target_arch = "x86_64") {
        return println!("skipped: the rules are for x86-64 assembly");
    }
    let fixture = Fixture {
        name: "codegen",
        source: "codegen/turn.rs",
        manifest: "[dependencies]\nxdp-core = { path = \"ROOT/xdp-core\", default-features = false, features = [\"sim\"] }\n",
        flags: "--emit=asm -Csymbol-mangling-version=v0",
    };
    let results = fixture.build().unwrap();
    let mut program = Program::default();
    for result in results {
        let name = result.file_name().unwrap().to_str().unwrap();
        if ["codegen-", "xdp_core-", "xdp_umem-", "xdp_bpf-"].iter().any(|ours| name.starts_with(ours)) {
            program.read(&fs::read_to_string(result.with_extension("s")).unwrap());
        }
    }
    let simulated = program.named("turn_over_simulation");
    assert_eq!(program.broken(simulated, &[]), [] as [&str; 0]);
    let socket = program.named("turn_over_socket");
    assert_eq!(program.broken(socket, SYSTEM_CALLS), [] as [&str; 0]);

    // The fence is where it belongs, and there is one: else the exception above hides nothing.
    let careful = program.look(program.named("kick_with_care")).unwrap();
    let fences = careful.iter().filter(|found| matches!(found, Found::Fence(_) | Found::Locked(_)));
    assert_eq!(fences.count(), 1);
    assert!(!program.broken(socket, &[]).is_empty(), "the walk gets as far as the system calls");
}

#[test]
fn the_checker_finds_each_thing_it_is_there_for() {
    let text = |body: &str| {
        format!(
            "\t.type\tturn,@function\nturn:\n.Lfunc_begin0:\n\t.cfi_startproc\n{body}\tretq\n\t.size\tturn, 9\n\
             inner:\n\tcallq\tmemcpy@PLT\n\tretq\n\t.size\tinner, 9\n"
        )
    };
    let broken = |body: &str| {
        let mut program = Program::default();
        program.read(&text(body));
        program.broken("turn", &[])
    };
    for fine in [
        "\taddq\t$1, (%rax)\n",
        "\tcallq\tinner\n",
        "\tcallq\t*inner@GOTPCREL(%rip)\n",
        "\tjmp\t.LBB0_1\n",
        "\txchgw\t%ax, %ax\n",
        "\tleaq\t.LJTI0_0(%rip), %rcx\n\tjmpq\t*%rcx\n",
        "\tcallq\t_RNvNtCs1234_4core9panicking5panic\n",
        "\tmovq\t%rax, %rbx # lock it\n",
        "\tmovq\tinner@GOTPCREL(%rip), %r15\n\taddq\t%r15, %rax\n\tcallq\t*%r15\n",
    ] {
        assert_eq!(broken(fine), [] as [&str; 0], "{fine}");
    }
    for planted in [
        "\tlock\taddq\t$1, (%rax)\n",
        "\tlock\t\torl\t$0, -64(%rsp)\n",
        "\txchgq\t%rax, (%rbx)\n",
        "\tmfence\n",
        "\tcallq\t*%rax\n",
        "\tcallq\t*24(%rax)\n",
        "\tmovq\tinner@GOTPCREL(%rip), %r15\n\tmovq\t8(%rax), %r15\n\tcallq\t*%r15\n",
        "\tmovq\tinner@GOTPCREL(%rip), %r15\n\tcallq\t*%rax\n",
        "\tmovq\tmalloc@GOTPCREL(%rip), %r15\n\tcallq\t*%r15\n",
        "\tjmpq\t*%rax\n",
        "\tjmpq\t*8(%rax)\n",
        "\tleaq\t.LJTI0_0(%rip), %rcx\n\tjmpq\t*8(%rax)\n",
        "\tcallq\t*__rust_alloc@GOTPCREL(%rip)\n",
        "\tjmp\t__rust_dealloc@PLT\n",
        "\tcallq\tsomebody_elses_function@PLT\n",
    ] {
        assert_eq!(broken(planted).len(), 1, "{planted}: {:?}", broken(planted));
    }
    // What is planted deeper is found as well.
    let mut program = Program::default();
    program.read(&text("\tcallq\tinner\n").replace("memcpy@PLT", "*%rdx"));
    assert_eq!(program.broken("turn", &[]), ["inner: Indirect(\"callq *%rdx\")"]);
}
