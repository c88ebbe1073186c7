// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * What xdp-bpf assembles, in C: to read, and to compare. Nothing here is built; the crate needs no compiler.
 *
 *     clang -O2 -g -target bpf -c redirect.bpf.c        and then  llvm-objdump -d redirect.bpf.o
 *
 * beside `Rules::compile` and its `Listing`. Two programs: the default one, which redirects every packet, and the one for
 * the rule `udp port 5000-5010`, which shows how a packet is read before anything is compared.
 *
 * One thing differs: here a header's length is added to the packet's pointer, which the verifier allows with CAP_PERFMON only.
 * The assembled program reads what is behind IPv4 options and IPv6 extensions with bpf_xdp_load_bytes and does without.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, value) int(*name)[value]
#define wire16(x) ((__be16)((((x) & 0xff) << 8) | (((x) >> 8) & 0xff))) /* on little-endian machines */

static long (*bpf_redirect_map)(void *map, __u64 key, __u64 flags) = (void *)BPF_FUNC_redirect_map;

/* Which socket takes the packets of a queue: index = queue + first_index. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, 64);
} xdp_sockets SEC(".maps");

/* The default: `all`. Without a socket in the slot the packet passes to the host: the flags' low bits say so. */
SEC("xdp")
int redirect_all(struct xdp_md *context)
{
	return bpf_redirect_map(&xdp_sockets, context->rx_queue_index, XDP_PASS);
}

enum { TAGS = 2, EXTENSIONS = 4 };

struct tag {
	__be16 tci;
	__be16 ether_type;
};

struct extension {
	__u8 next;
	__u8 len; /* in 8 bytes, the first 8 not counted */
	__be16 fragment;
	__u32 rest;
};

/* `udp port 5000-5010`. What a packet does not have matches nothing, and what does not match passes. */
SEC("xdp")
int redirect_udp_port(struct xdp_md *context)
{
	void *at = (void *)(long)context->data;
	void *end = (void *)(long)context->data_end;
	struct udphdr *udp;
	__u16 ether_type, port;
	__u8 protocol;

	if (at + ETH_HLEN > end)
		return XDP_PASS;
	ether_type = ((struct ethhdr *)at)->h_proto;
	at += ETH_HLEN;

	for (int i = 0; i < TAGS; i++) {
		struct tag *tag = at;

		if (ether_type != wire16(ETH_P_8021Q) && ether_type != wire16(ETH_P_8021AD))
			break;
		if (at + sizeof(*tag) > end)
			return XDP_PASS;
		ether_type = tag->ether_type;
		at += sizeof(*tag);
	}

	if (ether_type == wire16(ETH_P_IP)) {
		struct iphdr *ip = at;

		if (at + sizeof(*ip) > end || ip->version != 4 || ip->ihl < 5)
			return XDP_PASS;
		protocol = ip->protocol;
		if (ip->frag_off & wire16(0x1fff)) /* not the first fragment: no ports */
			return XDP_PASS;
		at += ip->ihl * 4;
	} else if (ether_type == wire16(ETH_P_IPV6)) {
		struct ipv6hdr *ip = at;

		if (at + sizeof(*ip) > end || ip->version != 6)
			return XDP_PASS;
		protocol = ip->nexthdr;
		at += sizeof(*ip);
		for (int i = 0; i < EXTENSIONS; i++) {
			struct extension *extension = at;

			if (protocol != IPPROTO_HOPOPTS && protocol != IPPROTO_ROUTING && protocol != IPPROTO_DSTOPTS &&
			    protocol != IPPROTO_FRAGMENT)
				break;
			if (at + sizeof(*extension) > end)
				return XDP_PASS;
			if (protocol == IPPROTO_FRAGMENT) {
				if (extension->fragment & wire16(0xfff8))
					return XDP_PASS;
				at += sizeof(*extension);
			} else {
				at += (extension->len + 1) * 8;
			}
			protocol = extension->next;
		}
	} else {
		return XDP_PASS;
	}

	udp = at;
	if (protocol != IPPROTO_UDP || at + sizeof(*udp) > end)
		return XDP_PASS;
	port = __builtin_bswap16(udp->dest);
	if (port < 5000 || port > 5010)
		return XDP_PASS;
	return bpf_redirect_map(&xdp_sockets, context->rx_queue_index, XDP_PASS);
}

char license[] SEC("license") = "Dual MIT/GPL";
