// SPDX-License-Identifier: GPL-2.0-only
/*
 * What Cilium's host routing does with packets for a pod: from the node's own device straight into the pod's, past the host's end of
 * the veth and past XDP on the pod's end. Compiled by the test with POD_INDEX (interface index of the host's end), POD_MAC and
 * the pod's addresses.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

SEC("tc")
int redirect(struct __sk_buff *ctx)
{
	const __u8 mac[6] = {POD_MAC}, ipv4[4] = {POD_IPV4}, ipv6[16] = {POD_IPV6};
	__u8 type[2], destination[16];

	if (bpf_skb_load_bytes(ctx, 12, type, 2))
		return TC_ACT_OK;
	if (type[0] == 0x08 && type[1] == 0x00) {
		if (bpf_skb_load_bytes(ctx, 14 + 16, destination, 4) || __builtin_memcmp(destination, ipv4, 4))
			return TC_ACT_OK;
	} else if (type[0] == 0x86 && type[1] == 0xdd) {
		if (bpf_skb_load_bytes(ctx, 14 + 24, destination, 16))
			return TC_ACT_OK;
		for (int i = 0; i < 16; i++)
			if (destination[i] != ipv6[i])
				return TC_ACT_OK;
	} else {
		return TC_ACT_OK;
	}
	if (bpf_skb_store_bytes(ctx, 0, mac, 6, 0))
		return TC_ACT_SHOT;
	return bpf_redirect_peer(POD_INDEX, 0);
}

char LICENSE[] SEC("license") = "GPL";
