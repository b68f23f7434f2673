// SPDX-License-Identifier: GPL-2.0-only
/*
 * Socket load balancing: what a protected pod's socket sends to the address of a service goes to the address of a pod behind it.
 *
 * Encryption is between pods' own addresses. Where kube-proxy replaces the address of a service on the node, it does so after the
 * packet was encrypted or refused; so it has to be replaced earlier, where there is no packet yet: when a socket connects, or sends
 * a datagram. The programs are attached to the root of the cgroup hierarchy, so every socket of the node comes by, and those of
 * protected pods are told by their network namespace. What flows by a connection afterwards does not come here.
 *
 * An application sees what it asked for: getpeername and the source of an answer are given the service's address again.
 */
#include "kernel.bpf.h"
#include "socketlb.h"

#define XE_IPPROTO_TCP 6
#define XE_IPPROTO_UDP 17
#define XE_REMEMBERED 8 /* services that one socket may speak with at a time and get answers under their addresses */
#define XE_ALLOW 1

/* ---- maps ---- */

/* Network namespaces of protected pods, by their cookies. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, XE_BALANCED_PODS);
	__type(key, __u64);
	__type(value, __u32);
} pods SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, XE_SERVICES_DEFAULT);
	__type(key, struct xe_service_address);
	__type(value, struct xe_service);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, XE_BACKENDS_DEFAULT);
	__type(key, struct xe_backend_key);
	__type(value, struct xe_backend);
} backends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, XE_SOCKETLB_COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

/* One replacement: from this service to this backend. */
struct xe_translation {
	struct xe_service_address service;
	struct xe_backend backend;
	__u32 set; /* 0: nothing here */
};

/* What a socket has had replaced; ends with the socket. */
struct xe_translations {
	struct bpf_spin_lock lock;
	__u32 next; /* to be overwritten */
	struct xe_translation last[XE_REMEMBERED];
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct xe_translations);
} translations SEC(".maps");

/* ---- addresses in the context ---- */

XE_INLINE struct xe_service_address xe_target4(const struct bpf_sock_addr *context)
{
	return (struct xe_service_address){
		.address = {.word = {0, 0, bpf_htonl(0xffff), context->user_ip4}},
		.port = (__u16)context->user_port,
		.protocol = (__u8)context->protocol,
	};
}

XE_INLINE struct xe_service_address xe_target6(const struct bpf_sock_addr *context)
{
	return (struct xe_service_address){
		.address = {.word = {context->user_ip6[0], context->user_ip6[1], context->user_ip6[2], context->user_ip6[3]}},
		.port = (__u16)context->user_port,
		.protocol = (__u8)context->protocol,
	};
}

XE_INLINE void xe_write4(struct bpf_sock_addr *context, const struct xe_address *address, __u16 port)
{
	context->user_ip4 = address->word[3];
	context->user_port = port;
}

XE_INLINE void xe_write6(struct bpf_sock_addr *context, const struct xe_address *address, __u16 port)
{
	context->user_ip6[0] = address->word[0];
	context->user_ip6[1] = address->word[1];
	context->user_ip6[2] = address->word[2];
	context->user_ip6[3] = address->word[3];
	context->user_port = port;
}

XE_INLINE int xe_is_same_address(const struct xe_address *a, const struct xe_address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] && a->word[3] == b->word[3];
}

XE_INLINE int xe_is_same_service(const struct xe_service_address *a, const struct xe_service_address *b)
{
	return xe_is_same_address(&a->address, &b->address) && a->port == b->port && a->protocol == b->protocol;
}

/* ---- there ---- */

XE_INLINE void xe_count_socket(__u32 what)
{
	__u64 *count = bpf_map_lookup_elem(&counts, &what);

	if (count)
		*count += 1;
}

/* Any number for a new connection; for a sticky service always the same one for a pod. */
XE_INLINE __u32 xe_draw(const struct xe_service *service, __u64 pod)
{
	if (service->flags & XE_SERVICE_STICKY)
		return (__u32)((pod * 0x9e3779b97f4a7c15ULL) >> 32) % service->backends;
	return bpf_get_prandom_u32() % service->backends;
}

/*
 * The backend that a socket's datagrams to a service go to already, while the service's set is the same: answers must come from
 * whom the question went to. Returns 0 when there is none.
 */
XE_INLINE int xe_recall(struct xe_translations *t, const struct xe_service_address *target, __u32 set, struct xe_backend *backend)
{
	int found = 0;

	bpf_spin_lock(&t->lock);
	for (int i = 0; i < XE_REMEMBERED; i++) {
		if (t->last[i].set == set && xe_is_same_service(&t->last[i].service, target)) {
			*backend = t->last[i].backend;
			found = 1;
			break;
		}
	}
	bpf_spin_unlock(&t->lock);
	return found;
}

XE_INLINE void xe_remember(struct xe_translations *t, const struct xe_service_address *target, __u32 set,
			   const struct xe_backend *backend)
{
	bpf_spin_lock(&t->lock);
	__u32 at = t->next & (XE_REMEMBERED - 1);

	/* The place of the same service's earlier set, if there is one: its backend may be gone. */
	for (__u32 i = 0; i < XE_REMEMBERED; i++)
		if (t->last[i].set && xe_is_same_service(&t->last[i].service, target))
			at = i;
	if (at == (t->next & (XE_REMEMBERED - 1)))
		t->next = at + 1;
	t->last[at & (XE_REMEMBERED - 1)].service = *target;
	t->last[at & (XE_REMEMBERED - 1)].backend = *backend;
	t->last[at & (XE_REMEMBERED - 1)].set = set;
	bpf_spin_unlock(&t->lock);
}

/*
 * Finds where a protected pod's socket is to go instead of `target`. Returns 0 when `target` stays: it is no service, the pod is not
 * protected, or what must be remembered has no room.
 */
XE_INLINE int xe_balance(struct bpf_sock_addr *context, const struct xe_service_address *target, struct xe_backend *backend,
			 const int connects)
{
	struct bpf_sock *socket = context->sk;
	__u64 pod = bpf_get_netns_cookie(context);
	struct xe_translations *t;
	struct xe_backend *found = NULL;
	struct xe_service *service = NULL;
	__u32 set = 0;

	if (!bpf_map_lookup_elem(&pods, &pod))
		return 0;
	/* Twice: a set may be exchanged between the two look-ups. */
	for (int attempt = 0; attempt < 2 && !found; attempt++) {
		service = bpf_map_lookup_elem(&services, target);
		if (!service || !socket)
			return 0;
		set = service->set;
		if (!service->backends)
			return 0;
		struct xe_backend_key key = {.set = set, .index = xe_draw(service, pod)};

		found = bpf_map_lookup_elem(&backends, &key);
	}
	t = found ? bpf_sk_storage_get(&translations, socket, NULL, BPF_SK_STORAGE_GET_F_CREATE) : NULL;
	if (!t) {
		xe_count_socket(XE_SOCKETLB_FAILED);
		return 0;
	}
	if (connects || !xe_recall(t, target, set, backend)) {
		*backend = *found;
		xe_remember(t, target, set, backend);
	}
	xe_count_socket(connects ? XE_SOCKETLB_CONNECTS : XE_SOCKETLB_DATAGRAMS);
	return 1;
}

/* ---- and back ---- */

/* The service under which `source`, a backend, is known to the application. Returns 0 when it is none. */
XE_INLINE int xe_restore(struct bpf_sock_addr *context, const struct xe_service_address *source, struct xe_service_address *service)
{
	struct bpf_sock *socket = context->sk;
	struct xe_translations *t;
	int found = 0;

	if (!socket)
		return 0;
	t = bpf_sk_storage_get(&translations, socket, NULL, 0);
	if (!t)
		return 0;
	bpf_spin_lock(&t->lock);
	for (int i = 0; i < XE_REMEMBERED; i++) {
		if (t->last[i].set && t->last[i].backend.port == source->port &&
		    xe_is_same_address(&t->last[i].backend.address, &source->address)) {
			*service = t->last[i].service;
			found = 1;
			break;
		}
	}
	bpf_spin_unlock(&t->lock);
	return found;
}

/* ---- programs ---- */

XE_INLINE int xe_is_balanced(const struct bpf_sock_addr *context)
{
	return context->protocol == XE_IPPROTO_TCP || context->protocol == XE_IPPROTO_UDP;
}

#define XE_THERE(name, section, family, connects)                                                                              \
	SEC(section)                                                                                                           \
	int name(struct bpf_sock_addr *context)                                                                                \
	{                                                                                                                      \
		struct xe_service_address target = xe_target##family(context);                                                 \
		struct xe_backend backend = {};                                                                                \
                                                                                                                               \
		if (xe_is_balanced(context) && xe_balance(context, &target, &backend, connects))                               \
			xe_write##family(context, &backend.address, backend.port);                                             \
		return XE_ALLOW;                                                                                               \
	}

#define XE_BACK(name, section, family, answers)                                                                                \
	SEC(section)                                                                                                           \
	int name(struct bpf_sock_addr *context)                                                                                \
	{                                                                                                                      \
		struct xe_service_address source = xe_target##family(context), service = {};                                   \
                                                                                                                               \
		if (xe_is_balanced(context) && xe_restore(context, &source, &service)) {                                       \
			xe_write##family(context, &service.address, service.port);                                             \
			if (answers)                                                                                           \
				xe_count_socket(XE_SOCKETLB_ANSWERS);                                                          \
		}                                                                                                              \
		return XE_ALLOW;                                                                                               \
	}

XE_THERE(xe_connect4, "cgroup/connect4", 4, 1)
XE_THERE(xe_connect6, "cgroup/connect6", 6, 1)
XE_THERE(xe_sendmsg4, "cgroup/sendmsg4", 4, 0)
XE_THERE(xe_sendmsg6, "cgroup/sendmsg6", 6, 0)
XE_BACK(xe_recvmsg4, "cgroup/recvmsg4", 4, 1)
XE_BACK(xe_recvmsg6, "cgroup/recvmsg6", 6, 1)
XE_BACK(xe_getpeername4, "cgroup/getpeername4", 4, 0)
XE_BACK(xe_getpeername6, "cgroup/getpeername6", 6, 0)

char LICENSE[] SEC("license") = "GPL";
