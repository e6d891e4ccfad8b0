// SPDX-License-Identifier: MIT

//! The peer in Rust: tun-rs with offloads, by `recv_multiple` and `send_multiple`.
//!
//!     peer receive                 for each number on its standard input receives that many packets
//!     peer send PACKET             sends that many; PACKET is in hexadecimal
//!     peer echo                    answers every packet
//!     peer forward NETNS NETNS     between "tun0" in two network namespaces, given as descriptors
//!
//! receive and send print the nanoseconds that it took.

use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::time::Instant;
use tun_rs::{DeviceBuilder, GROTable, SyncDevice, IDEAL_BATCH_SIZE, VIRTIO_NET_HDR_LEN};

const OFFSET: usize = VIRTIO_NET_HDR_LEN;

/// With room for what send_multiple merges into the first of a group.
fn buffers() -> Vec<Vec<u8>> {
    let make = |_| {
        let mut buffer = Vec::with_capacity(OFFSET + 65536);
        buffer.resize(OFFSET + 1500, 0);
        buffer
    };
    (0..IDEAL_BATCH_SIZE).map(make).collect()
}

struct Receiver {
    device: Arc<SyncDevice>,
    whole: Vec<u8>,
    packets: Vec<Vec<u8>>,
    sizes: Vec<usize>,
}

impl Receiver {
    fn new(device: Arc<SyncDevice>) -> Self {
        Receiver {
            device,
            whole: vec![0; VIRTIO_NET_HDR_LEN + 65535],
            packets: buffers(),
            sizes: vec![0; IDEAL_BATCH_SIZE],
        }
    }

    fn receive(&mut self) -> usize {
        for packet in &mut self.packets {
            // send_multiple may have made it shorter or longer.
            packet.resize(OFFSET + 1500, 0);
        }
        self.device
            .recv_multiple(&mut self.whole, &mut self.packets, &mut self.sizes, OFFSET)
            .expect("recv_multiple")
    }
}

fn open() -> Arc<SyncDevice> {
    let device = DeviceBuilder::new().name("tun0").offload(true).build_sync().expect("tun0");
    Arc::new(device)
}

fn pass(mut from: Receiver, to: Arc<SyncDevice>, change: fn(&mut [u8])) -> ! {
    let mut table = GROTable::default();
    loop {
        let count = from.receive();
        for (packet, size) in from.packets.iter_mut().zip(&from.sizes).take(count) {
            packet.truncate(OFFSET + size);
            change(&mut packet[OFFSET..]);
        }
        let _ = to.send_multiple(&mut table, &mut from.packets[..count], OFFSET);
    }
}

fn swap(packet: &mut [u8]) {
    let kept: [u8; 12] = packet[12..24].try_into().unwrap();
    packet[12..16].copy_from_slice(&kept[4..8]);
    packet[16..20].copy_from_slice(&kept[0..4]);
    packet[20..22].copy_from_slice(&kept[10..12]);
    packet[22..24].copy_from_slice(&kept[8..10]);
}

fn say(what: impl std::fmt::Display) {
    println!("{what}");
    io::stdout().flush().unwrap();
}

fn forward(namespaces: &[String]) -> ! {
    let ends: Vec<_> = namespaces
        .iter()
        .map(|namespace| {
            let entered = unsafe { libc::setns(namespace.parse().unwrap(), libc::CLONE_NEWNET) };
            assert_eq!(entered, 0, "setns");
            open()
        })
        .collect();
    say("ready");
    let (left, right) = (ends[0].clone(), ends[1].clone());
    std::thread::spawn(move || pass(Receiver::new(left), right, |_| {}));
    pass(Receiver::new(ends[1].clone()), ends[0].clone(), |_| {})
}

fn receive(receiver: &mut Receiver, mut left: usize) -> usize {
    let mut seen = 0;
    while left > 0 {
        let count = receiver
            .device
            .recv_multiple(&mut receiver.whole, &mut receiver.packets, &mut receiver.sizes, OFFSET)
            .expect("recv_multiple");
        for (packet, size) in receiver.packets.iter().zip(&receiver.sizes).take(count) {
            seen += packet[OFFSET..OFFSET + size].len();
        }
        left = left.saturating_sub(count);
    }
    seen
}

/// The library merges packets in their buffers, so that each batch has to be filled anew.
fn send(device: &SyncDevice, table: &mut GROTable, batch: &mut [Vec<u8>], packet: &[u8], mut left: usize) {
    while left > 0 {
        let count = left.min(batch.len());
        for buffer in &mut batch[..count] {
            buffer.resize(OFFSET + packet.len(), 0);
            buffer[OFFSET..].copy_from_slice(packet);
        }
        device.send_multiple(table, &mut batch[..count], OFFSET).expect("send_multiple");
        left -= count;
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let work = arguments[1].as_str();
    if work == "forward" {
        forward(&arguments[2..]);
    }
    let device = open();
    let mut receiver = Receiver::new(device.clone());
    say("ready");
    if work == "echo" {
        pass(receiver, device, swap);
    }
    let packet: Vec<u8> = match arguments.get(2) {
        Some(text) => (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect(),
        None => Vec::new(),
    };
    let mut table = GROTable::default();
    let mut batch = buffers();
    for line in io::stdin().lock().lines() {
        let number: usize = line.unwrap().trim().parse().unwrap();
        let began = Instant::now();
        if work == "send" {
            send(&device, &mut table, &mut batch, &packet, number);
        } else {
            std::hint::black_box(receive(&mut receiver, number));
        }
        say(began.elapsed().as_nanos());
    }
}
