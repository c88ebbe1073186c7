//! Links and attachments on interfaces of throw-away network namespaces: the loopback interface, and veth pairs.

mod common;

use common::{keep_documented_capabilities, privileged, xdp_socket};
use core::time::Duration;
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;
use xdp_bpf::{
    AttachError, AttachOptions, Attached, Attachment, Holder, Link, LoadOptions, Mode, Program, Rules,
    attached,
};
use xdp_umem::Errno;

const LO: u32 = 1; // every namespace's first interface

#[test]
fn a_program_stays_as_long_as_its_attachment() {
    in_namespace(|| {
        assert_eq!(attached(LO), Ok(None));
        let attachment = on_lo("all").unwrap();
        let there = attached(LO).unwrap().expect("a program");
        let Attached { mode, id, ref name, holder, .. } = there;
        assert_eq!(
            (mode, id, name.as_deref()),
            (Some(Mode::Skb), attachment.program().id(), Some("xdp_redirect"))
        );
        assert_eq!(holder, Holder::Link { id: attachment.link().id() });
        assert_eq!((attachment.ifindex(), attachment.mode(), attachment.index(3)), (LO, Mode::Skb, 3));
        drop(attachment);
        assert_eq!(attached(LO), Ok(None));
    });
}

#[test]
fn a_second_program_is_refused_and_the_first_one_named() {
    in_namespace(|| {
        let first = on_lo("udp port 5000").unwrap();
        let error = on_lo("all").unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "attach to lo (skb): EBUSY; program `xdp_redirect` (id {}, skb) is already attached: end the process that holds bpf link \
                 {link} (its /proc/PID/fdinfo says link_id {link}), or unpin the link",
                first.program().id(),
                link = first.link().id()
            )
        );
    });
}

#[test]
fn a_program_attached_through_netlink_is_named_with_the_command_that_removes_it() {
    in_namespace(|| {
        let program = Program::drop_all().unwrap();
        netlink_attach(LO, &program);
        let there = attached(LO).unwrap().expect("a program");
        assert_eq!((there.id, there.holder), (program.id(), Holder::Netlink));
        let error = on_lo("all").unwrap_err().to_string();
        let want = format!(
            "attach to lo (skb): EBUSY; program `xdp_drop` (id {}, skb) is already attached: detach it with `ip link set dev lo xdpgeneric off`",
            program.id()
        );
        assert_eq!(error, want);
    });
}

#[test]
fn the_documented_capabilities_attach_and_see_that_there_is_a_program() {
    in_namespace(|| {
        keep_documented_capabilities();
        let attachment = on_lo("udp port 5000").unwrap();
        let there = attached(LO).unwrap().expect("a program");
        assert_eq!((there.id, there.mode), (attachment.program().id(), Some(Mode::Skb)));
        assert_eq!((&there.name, there.holder), (&None, Holder::Unknown), "names need CAP_SYS_ADMIN");
        let error = on_lo("all").unwrap_err().to_string();
        let want = format!(
            "attach to lo (skb): EBUSY; program {} (skb) is already attached: end the program",
            there.id
        );
        assert!(error.starts_with(&want), "{error}");
    });
}

#[test]
fn a_program_in_the_other_mode_is_in_the_way_too() {
    in_namespace(|| {
        let (a, _) = veth(1500, 1);
        let pass = Program::pass().unwrap();
        let native = Link::attach(&pass, a, Mode::Native, "a").unwrap();
        assert_eq!(attached(a).unwrap().expect("a program").mode, Some(Mode::Native));
        let error = Link::attach(&pass, a, Mode::Skb, "a").unwrap_err();
        let AttachError::Busy { errno: Errno::EEXIST, attached: Some(there), .. } = error else {
            panic!("{error}")
        };
        assert_eq!((there.mode, there.holder), (Some(Mode::Native), Holder::Link { id: native.id() }));
    });
}

#[test]
fn each_refusal_says_what_to_do() {
    in_namespace(|| {
        let native = |ifindex, frags| {
            let options = AttachOptions { interface: "x".into(), frags, ..AttachOptions::default() };
            Attachment::new(ifindex, Mode::Native, &Rules::all(), &options)
        };
        let says = |result: Result<Attachment, AttachError>, want: &str| {
            let text = result.unwrap_err().to_string();
            assert!(text.starts_with(want) && text.contains(';'), "{text:?} does not begin with {want:?}");
        };
        says(native(LO, false), "attach to x (native): EOPNOTSUPP; the driver has no native XDP");
        says(
            native(12345, false),
            "attach to x (native): ENODEV; no such interface in this network namespace",
        );
        let (large, _) = veth(9000, 1);
        says(native(large, false), "attach to x (native): ERANGE; the MTU");
        assert!(native(large, true).is_ok(), "frags allow a large MTU");
        remove(large);
        let (narrow, _) = veth(1500, 2);
        says(native(narrow, false), "attach to x (native): ENOSPC; too few queues");
        assert_eq!(attached(narrow), Ok(None));
        assert_eq!(attached(12345).unwrap_err().errno(), Some(Errno::ENODEV));
    });
}

#[test]
fn frags_are_a_matter_of_loading() {
    in_namespace(|| {
        let map = xdp_bpf::XskMap::new(1).unwrap();
        let load =
            |frags| Program::redirect(&Rules::all(), &map, 0, LoadOptions::default().frags(frags)).unwrap();
        let (plain, frags) = (load(false), load(true));
        let (large, _) = veth(9000, 1);
        assert_eq!(Link::attach(&plain, large, Mode::Native, "a").unwrap_err().errno(), Some(Errno::ERANGE));
        let link = Link::attach(&frags, large, Mode::Native, "a").unwrap();
        let refused = link.update(&plain).unwrap_err();
        assert!(refused.to_string().contains("load it as the first one was loaded"), "{refused}");
    });
}

#[test]
fn a_link_takes_another_program_and_knows_which_one_it_expects() {
    in_namespace(|| {
        let (pass, drops, tx) =
            (Program::pass().unwrap(), Program::drop_all().unwrap(), Program::tx().unwrap());
        let on = || attached(LO).unwrap().map(|there| there.id);
        let link = Link::attach(&pass, LO, Mode::Skb, "lo").unwrap();
        assert_eq!(on(), Some(pass.id()));
        link.update(&drops).unwrap();
        assert_eq!(on(), Some(drops.id()));
        let unexpected = link.replace(&pass, &tx).unwrap_err();
        assert_eq!(unexpected.errno(), Some(Errno::EPERM));
        assert!(unexpected.to_string().contains("another program than the expected one"), "{unexpected}");
        assert_eq!(on(), Some(drops.id()));
        link.replace(&drops, &tx).unwrap();
        assert_eq!(on(), Some(tx.id()));
        link.detach().unwrap();
        assert_eq!(on(), None);
        assert_eq!(link.update(&pass).unwrap_err().errno(), Some(Errno::ENOLINK));
    });
}

#[test]
fn a_link_outlives_its_device_without_harm() {
    in_namespace(|| {
        let (a, _) = veth(1500, 1);
        let pass = Program::pass().unwrap();
        let link = Link::attach(&pass, a, Mode::Native, "a").unwrap();
        remove(a);
        assert_eq!(attached(a).unwrap_err().errno(), Some(Errno::ENODEV));
        assert_eq!(link.update(&pass).unwrap_err().errno(), Some(Errno::ENOLINK));
    });
}

#[test]
fn what_no_rule_matches_and_what_no_socket_takes_reaches_the_host() {
    in_namespace(|| {
        up(LO);
        let receivers = [5000, 5001].map(|port| UdpSocket::bind(("127.0.0.1", port)).unwrap());
        // Which of the two ports hear of a packet.
        let heard = || {
            receivers.each_ref().map(|receiver| {
                receiver.send_to(b"hello", receiver.local_addr().unwrap()).unwrap();
                // Delivery over loopback happens within send.
                receiver.set_nonblocking(true).unwrap();
                match receiver.recv(&mut [0; 16]) {
                    Ok(len) => len == 5,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => false,
                    Err(error) => panic!("{error}"),
                }
            })
        };
        let mut attachment = on_lo("udp port 5000").unwrap();
        assert_eq!(heard(), [true, true], "no socket in the map");
        let socket = xdp_socket(); // never bound: what is redirected to it is lost
        attachment.map().set(0, &socket).unwrap();
        assert_eq!(heard(), [false, true]);
        attachment.replace_rules(&"udp port 5001-5002".parse().unwrap()).unwrap();
        assert_eq!(heard(), [true, false]);
        attachment.map().clear(0).unwrap();
        assert_eq!(heard(), [true, true]);
    });
}

#[test]
fn a_killed_process_leaves_no_program() {
    const CHILD: &str = "XDP_BPF_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let _attachment = on_lo("all").unwrap();
        println!("\nattached");
        thread::sleep(Duration::from_secs(30)); // killed long before
        return;
    }
    in_namespace(|| {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["a_killed_process_leaves_no_program", "--exact", "--nocapture"])
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .spawn()
            .map(Killed)
            .unwrap();
        let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line == "attached"), "the child attaches");
        assert!(matches!(attached(LO), Ok(Some(Attached { holder: Holder::Link { .. }, .. }))));
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while attached(LO).unwrap().is_some() {
            assert!(Instant::now() < deadline, "the program is still there");
            thread::sleep(Duration::from_millis(1));
        }
    });
}

/// A child that does not outlive a failed test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn on_lo(rules: &str) -> Result<Attachment, AttachError> {
    let options = AttachOptions { interface: "lo".into(), queues: 4, ..AttachOptions::default() };
    Attachment::new(LO, Mode::Skb, &rules.parse().unwrap(), &options)
}

/// Runs a test on a thread of its own in a network namespace of its own, which goes with the thread.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    if !privileged() {
        return;
    }
    let thread = thread::spawn(|| {
        // SAFETY: no memory is passed; only this thread changes its namespace.
        let returned = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(returned, 0, "unshare: {:#}", Errno::last());
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A veth pair a and b, both ends up: their indices. `mtu` is b's; b sends on `peer_queues` queues, a receives on one.
fn veth(mtu: u32, peer_queues: u32) -> (u32, u32) {
    const CREATE: u16 = 0x400;
    let mut peer = Message(vec![0; 16]);
    peer.attribute(libc::IFLA_IFNAME, b"b\0").attribute(libc::IFLA_MTU, &mtu.to_ne_bytes());
    peer.attribute(libc::IFLA_NUM_TX_QUEUES, &peer_queues.to_ne_bytes());
    let (mut data, mut info) = (Message(vec![]), Message(vec![]));
    data.attribute(1, &peer.0); // VETH_INFO_PEER
    info.attribute(libc::IFLA_INFO_KIND, b"veth").attribute(libc::IFLA_INFO_DATA, &data.0);
    let mut link = Message(vec![0; 16]);
    link.attribute(libc::IFLA_IFNAME, b"a\0");
    // Both must be said of this end, or the kernel starts the other end too with one queue of each.
    for queues in [libc::IFLA_NUM_RX_QUEUES, libc::IFLA_NUM_TX_QUEUES] {
        link.attribute(queues, &1u32.to_ne_bytes());
    }
    link.attribute(libc::IFLA_LINKINFO, &info.0);
    link.send(libc::RTM_NEWLINK, CREATE);
    let ends = [c"a", c"b"].map(|name| {
        // SAFETY: the name is a live C string.
        unsafe { libc::if_nametoindex(name.as_ptr()) }
    });
    ends.iter().for_each(|end| up(*end));
    (ends[0], ends[1])
}

fn up(ifindex: u32) {
    interface(ifindex, libc::IFF_UP as u32).send(libc::RTM_SETLINK, 0);
}

fn remove(ifindex: u32) {
    interface(ifindex, 0).send(libc::RTM_DELLINK, 0);
}

/// In skb mode, as `ip link set dev ... xdpgeneric` does.
fn netlink_attach(ifindex: u32, program: &Program) {
    let mut xdp = Message(vec![]);
    xdp.attribute(1, &program.fd().raw().to_ne_bytes()).attribute(3, &2u32.to_ne_bytes()); // IFLA_XDP_FD, IFLA_XDP_FLAGS
    interface(ifindex, 0).attribute(43 | 0x8000, &xdp.0).send(libc::RTM_SETLINK, 0); // IFLA_XDP, nested
}

/// `struct ifinfomsg`, with these flags set.
fn interface(ifindex: u32, flags: u32) -> Message {
    let words = [0, ifindex, flags, flags];
    Message(words.iter().flat_map(|word| word.to_ne_bytes()).collect())
}

/// A netlink message without its header.
struct Message(Vec<u8>);

impl Message {
    fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.0.extend((4 + value.len() as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Sends it and waits for the answer, which must be good.
    fn send(&self, kind: u16, flags: u16) {
        let mut message = Vec::new();
        message.extend((16 + self.0.len() as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((flags | 1 | 4).to_ne_bytes()); // NLM_F_REQUEST, NLM_F_ACK
        message.extend([0; 8]);
        message.extend(&self.0);
        let socket = xdp_umem::sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE).unwrap();
        // SAFETY: the message is live and as long as said.
        let sent = unsafe { libc::send(socket.raw(), message.as_ptr().cast(), message.len(), 0) };
        assert_eq!(sent, message.len() as isize);
        let mut answer = [0u8; 4096];
        // SAFETY: the answer has room for as many bytes as said.
        let received = unsafe { libc::recv(socket.raw(), answer.as_mut_ptr().cast(), answer.len(), 0) };
        assert!(received >= 20, "an answer");
        let error = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
        assert_eq!(error, 0, "netlink message {kind}: {:#}", Errno::from_raw(-error));
    }
}
