//! Attachment: all that one interface carries for AF_XDP.

#![forbid(unsafe_code)]

use crate::{AttachError, Link, LoadOptions, Mode, Program, Rules, XskMap};
use alloc::format;
use alloc::string::String;

/// How an interface is taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttachOptions {
    /// What messages call the interface; `interface 7` if empty.
    pub interface: String,
    /// How many receive queues may have sockets: 64.
    pub queues: u32,
    /// The XSKMAP's index for queue 0; queue q has this plus q. 0, so that an index is a queue's number.
    pub first_index: u32,
    /// The program may meet packets of several buffers, which large MTUs need in native mode. Off.
    pub frags: bool,
}

impl Default for AttachOptions {
    fn default() -> Self {
        Self { interface: String::new(), queues: 64, first_index: 0, frags: false }
    }
}

/// The program on an interface and the map of the sockets that it redirects to.
///
/// Sockets share it behind an `Arc` and let go of it last: dropping it takes the program off, which must not happen
/// while a zero-copy socket is bound.
#[derive(Debug)]
pub struct Attachment {
    // Dropped in this order: off the interface first, so that no packet meets a map without its sockets.
    link: Link,
    map: XskMap,
    program: Program,
    first_index: u32,
    frags: bool,
}

const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<Attachment>();
};

impl Attachment {
    /// Makes the map, loads the program for `rules`, and attaches it to an interface of this thread's network namespace. Until
    /// sockets are in the map every packet passes to the kernel. About five system calls.
    ///
    /// # Errors
    /// As [`XskMap::new`], [`Program::redirect`] and [`Link::attach`]; `EPERM` without `CAP_BPF` and `CAP_NET_ADMIN`.
    pub fn new(
        ifindex: u32,
        mode: Mode,
        rules: &Rules,
        options: &AttachOptions,
    ) -> Result<Self, AttachError> {
        let AttachOptions { ref interface, queues, first_index, frags } = *options;
        let map = XskMap::new(queues.saturating_add(first_index))?;
        let program = Program::redirect(rules, &map, first_index, LoadOptions { frags })?;
        let link = match interface.as_str() {
            "" => Link::attach(&program, ifindex, mode, &format!("interface {ifindex}")),
            name => Link::attach(&program, ifindex, mode, name),
        }?;
        Ok(Self { link, map, program, first_index, frags })
    }

    /// Puts the program for other rules in the place of the present one; sockets and map stay. About three system calls.
    ///
    /// # Errors
    /// As [`Program::redirect`] and [`Link::replace`]; the present program then stays.
    pub fn replace_rules(&mut self, rules: &Rules) -> Result<(), AttachError> {
        let program =
            Program::redirect(rules, &self.map, self.first_index, LoadOptions { frags: self.frags })?;
        self.link.replace(&self.program, &program)?;
        self.program = program;
        Ok(())
    }

    /// The sockets that packets are redirected to.
    pub fn map(&self) -> &XskMap {
        &self.map
    }

    /// The map's index for a receive queue.
    pub fn index(&self, queue: u32) -> u32 {
        self.first_index.saturating_add(queue)
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The link that holds it on the interface.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Where the program runs.
    pub fn mode(&self) -> Mode {
        self.link.mode()
    }

    /// The interface.
    pub fn ifindex(&self) -> u32 {
        self.link.ifindex()
    }
}
