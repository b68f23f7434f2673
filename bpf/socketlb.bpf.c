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
#define XE_REFUSE 0
#define XE_ECONNREFUSED 111

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
	__u32 index; /* of the backend in its set */
	__u32 used; /* when, by `clock` */
};

/* What a socket has had replaced; ends with the socket. */
struct xe_translations {
	struct bpf_spin_lock lock;
	__u32 next; /* to be overwritten */
	__u32 clock; /* counts uses */
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

/* The socket speaks with `target` itself from now on: what comes from there is not of a service any more. */
XE_INLINE void xe_forget(struct bpf_sock *socket, const struct xe_service_address *target)
{
	struct xe_translations *t = bpf_sk_storage_get(&translations, socket, NULL, 0);

	if (!t)
		return;
	bpf_spin_lock(&t->lock);
	for (int i = 0; i < XE_REMEMBERED; i++)
		if (t->last[i].backend.port == target->port && xe_is_same_address(&t->last[i].backend.address, &target->address))
			t->last[i].set = 0;
	bpf_spin_unlock(&t->lock);
}

/* What the socket has had last from a service; `set` is 0 when there is nothing. */
XE_INLINE void xe_recall(struct xe_translations *t, const struct xe_service_address *service, struct xe_translation *last)
{
	bpf_spin_lock(&t->lock);
	for (int i = 0; i < XE_REMEMBERED; i++) {
		if (t->last[i].set && xe_is_same_service(&t->last[i].service, service)) {
			*last = t->last[i];
			break;
		}
	}
	bpf_spin_unlock(&t->lock);
}

/* Notes a translation, in the place of the same service's last one. `keep`: unless another thread has noted one of this set meanwhile. */
XE_INLINE void xe_remember(struct xe_translations *t, struct xe_translation *now, const int keep)
{
	bpf_spin_lock(&t->lock);
	__u32 at = t->next & (XE_REMEMBERED - 1), found = 0;

	for (__u32 i = 0; i < XE_REMEMBERED; i++) {
		if (t->last[i].set && xe_is_same_service(&t->last[i].service, &now->service)) {
			at = i;
			found = 1;
		}
	}
	if (!found)
		t->next = at + 1;
	at &= XE_REMEMBERED - 1;
	now->used = ++t->clock;
	if (keep && found && t->last[at].set == now->set) {
		now->backend = t->last[at].backend;
		t->last[at].used = now->used;
	} else {
		t->last[at] = *now;
	}
	bpf_spin_unlock(&t->lock);
}

/*
 * Copies a backend. The kernel gives an element of a map that is removed or replaced to the next one at once, also while it is read
 * here: what was copied may be another service's. It is not if it still is where it was, because no number of a set is used twice.
 */
XE_INLINE int xe_read_backend(const struct xe_backend_key *key, struct xe_backend *backend)
{
	struct xe_backend *there = bpf_map_lookup_elem(&backends, key);

	if (!there)
		return 0;
	*backend = *there;
	xe_barrier();
	return bpf_map_lookup_elem(&backends, key) != NULL;
}

enum xe_choice {
	XE_CHOICE_NONE, /* `target` stays: it is no service, or nothing can be done */
	XE_CHOICE_BACKEND,
	XE_CHOICE_NOBODY, /* it is a service, and nobody is behind it */
};

/* Draws a backend of the service at `now->service`. The same holds for the service's value as for a backend. */
XE_INLINE int xe_choose(struct xe_translation *now, __u64 pod)
{
	for (int attempt = 0; attempt < 4; attempt++) {
		struct xe_service *there = bpf_map_lookup_elem(&services, &now->service), service;
		struct xe_backend_key key;

		if (!there)
			return XE_CHOICE_NONE;
		service = *there;
		key = (struct xe_backend_key){.set = service.set};
		if (service.backends) {
			key.index = xe_draw(&service, pod);
			if (!xe_read_backend(&key, &now->backend))
				continue;
		}
		xe_barrier();
		there = bpf_map_lookup_elem(&services, &now->service);
		if (!there || *(volatile __u32 *)&there->set != service.set)
			continue;
		if (!service.backends)
			return XE_CHOICE_NOBODY;
		now->set = service.set;
		now->index = key.index;
		return XE_CHOICE_BACKEND;
	}
	xe_count_socket(XE_SOCKETLB_FAILED);
	return XE_CHOICE_NONE;
}

/* Finds where a protected pod's socket is to go instead of `now->service`. */
XE_INLINE int xe_balance(struct bpf_sock_addr *context, struct xe_translation *now, const int connects)
{
	struct bpf_sock *socket = context->sk;
	__u64 pod = bpf_get_netns_cookie(context);
	struct xe_translation last = {};
	struct xe_backend_key key;
	struct xe_backend same;
	struct xe_translations *t;
	int choice;

	if (!socket || !bpf_map_lookup_elem(&pods, &pod))
		return XE_CHOICE_NONE;
	choice = xe_choose(now, pod);
	/* Not what a connected IPv6 socket sends by IPv4: the kernel gives it the address that it is connected to, the pod's, once more. */
	if (choice == XE_CHOICE_NONE && (connects || !socket->dst_port))
		xe_forget(socket, &now->service);
	if (choice == XE_CHOICE_NOBODY)
		xe_count_socket(XE_SOCKETLB_REFUSED);
	if (choice != XE_CHOICE_BACKEND)
		return choice;
	t = bpf_sk_storage_get(&translations, socket, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!t) {
		xe_count_socket(XE_SOCKETLB_FAILED);
		return XE_CHOICE_NONE;
	}
	if (!connects) {
		/* Datagrams go where earlier ones went, as long as that pod is behind the service: it may keep state about the client. */
		xe_recall(t, &now->service, &last);
		key = (struct xe_backend_key){.set = now->set, .index = last.index};
		if (last.set && last.set != now->set && xe_read_backend(&key, &same) && same.port == last.backend.port &&
		    xe_is_same_address(&same.address, &last.backend.address)) {
			now->backend = same;
			now->index = last.index;
		}
	}
	xe_remember(t, now, !connects);
	xe_count_socket(connects ? XE_SOCKETLB_CONNECTS : XE_SOCKETLB_DATAGRAMS);
	return XE_CHOICE_BACKEND;
}

/* ---- and back ---- */

/* The service under which `source`, a backend, is known to the application. Returns 0 when it is none. */
XE_INLINE int xe_restore(struct bpf_sock_addr *context, const struct xe_service_address *source, struct xe_service_address *service)
{
	struct bpf_sock *socket = context->sk;
	struct xe_translations *t;
	__u32 used = 0; /* `clock` begins with 1 */

	if (!socket)
		return 0;
	t = bpf_sk_storage_get(&translations, socket, NULL, 0);
	if (!t)
		return 0;
	bpf_spin_lock(&t->lock);
	for (int i = 0; i < XE_REMEMBERED; i++) {
		/* It may be behind several services: the one that was used last. */
		if (t->last[i].set && t->last[i].used > used && t->last[i].backend.port == source->port &&
		    xe_is_same_address(&t->last[i].backend.address, &source->address)) {
			*service = t->last[i].service;
			used = t->last[i].used;
		}
	}
	bpf_spin_unlock(&t->lock);
	return used != 0;
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
		struct xe_translation now = {.service = xe_target##family(context)};                                           \
		int choice = xe_is_balanced(context) ? xe_balance(context, &now, connects) : XE_CHOICE_NONE;                   \
                                                                                                                               \
		if (choice == XE_CHOICE_NOBODY) {                                                                              \
			bpf_set_retval(-XE_ECONNREFUSED);                                                                      \
			return XE_REFUSE;                                                                                      \
		}                                                                                                              \
		if (choice == XE_CHOICE_BACKEND)                                                                               \
			xe_write##family(context, &now.backend.address, now.backend.port);                                     \
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
