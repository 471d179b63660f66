// kernel-features: asks the kernel for what sidecars, nested clusters and databases use; a line for each, "NAME ok" or "NAME ERRNO".
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/pkt_sched.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static void report(const char *name, long result)
{
    if (result >= 0)
        printf("%s ok\n", name);
    else
        printf("%s %s\n", name, strerrorname_np(errno));
    fflush(stdout);
    errno = 0;
}

// iptables' own question before it loads a rule: which revision of a match (66) or target (67) has the kernel?
static void extension(int family, const char *kind, int option, const char *name, int revision)
{
    struct { char name[29]; unsigned char revision; } question = { .revision = revision };
    socklen_t length = sizeof question;
    char label[64];
    int s = socket(family, SOCK_RAW, IPPROTO_RAW);

    snprintf(question.name, sizeof question.name, "%s", name);
    snprintf(label, sizeof label, "%s%s:%s", kind, family == AF_INET6 ? "6" : "", name);
    report(label, s < 0 ? -1 : getsockopt(s, family == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP, option + (family == AF_INET6 ? 2 : 0), &question, &length));
    close(s);
}

static struct { struct nlmsghdr h; char rest[1024]; } message;

static struct rtattr *attribute(int type, const void *data, int length)
{
    struct rtattr *a = (struct rtattr *)((char *)&message + NLMSG_ALIGN(message.h.nlmsg_len));
    a->rta_type = type;
    a->rta_len = RTA_LENGTH(length);
    if (length)
        memcpy(RTA_DATA(a), data, length);
    message.h.nlmsg_len = NLMSG_ALIGN(message.h.nlmsg_len) + RTA_ALIGN(a->rta_len);
    return a;
}

static long answer(int protocol)
{
    struct { struct nlmsghdr h; struct nlmsgerr e; char rest[8192]; } reply;
    int s = socket(AF_NETLINK, SOCK_RAW, protocol);
    long r = s < 0 ? -1 : send(s, &message, message.h.nlmsg_len, 0);

    if (r >= 0)
        r = recv(s, &reply, sizeof reply, 0);
    if (r >= 0 && reply.h.nlmsg_type == NLMSG_ERROR && reply.e.error) {
        errno = -reply.e.error;
        r = -1;
    }
    close(s);
    return r;
}

static void link_kind(const char *kind, int id_attribute)
{
    struct ifinfomsg info = { 0 };
    int id = 7;
    char label[64];

    memset(&message, 0, sizeof message);
    message.h = (struct nlmsghdr){ NLMSG_LENGTH(sizeof info), RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, 1, 0 };
    memcpy(NLMSG_DATA(&message.h), &info, sizeof info);
    char name[IFNAMSIZ];
    snprintf(name, sizeof name, "t-%s", kind);
    attribute(IFLA_IFNAME, name, strlen(name) + 1);
    struct rtattr *outer = attribute(IFLA_LINKINFO, 0, 0);
    attribute(IFLA_INFO_KIND, kind, strlen(kind));
    if (id_attribute) {
        struct rtattr *data = attribute(IFLA_INFO_DATA, 0, 0);
        attribute(id_attribute, &id, sizeof id);
        data->rta_len = (char *)&message + message.h.nlmsg_len - (char *)data;
    }
    outer->rta_len = (char *)&message + message.h.nlmsg_len - (char *)outer;
    snprintf(label, sizeof label, "link:%s", kind);
    report(label, answer(NETLINK_ROUTE));
}

static void scheduler(const char *kind)
{
    struct tcmsg tc = { .tcm_ifindex = if_nametoindex("t-dummy"), .tcm_parent = TC_H_ROOT, .tcm_handle = 0x10000 };
    char label[64];

    memset(&message, 0, sizeof message);
    message.h = (struct nlmsghdr){ NLMSG_LENGTH(sizeof tc), RTM_NEWQDISC, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, 1, 0 };
    memcpy(NLMSG_DATA(&message.h), &tc, sizeof tc);
    attribute(TCA_KIND, kind, strlen(kind) + 1);
    snprintf(label, sizeof label, "scheduler:%s", kind);
    long r = answer(NETLINK_ROUTE);
    if (r < 0 && errno == EINVAL)
        r = 0;      // known, and wants parameters; an unknown one is ENOENT
    report(label, r);
}

int main(void)
{
    static const char *matches[] = { "owner", "statistic", "recent", "connmark", "conntrack", "limit", "hashlimit", "set", "socket", "string", "tcpmss",
        "multiport", "comment", "addrtype", "mark", "mac", "physdev", "iprange", "time", "connlimit", "bpf", "cgroup", "policy", "u32", 0 };
    static const char *targets[] = { "TPROXY", "REDIRECT", "MASQUERADE", "DNAT", "SNAT", "TCPMSS", "LOG", "CT", "MARK", "CONNMARK", "NFQUEUE", "NFLOG",
        "REJECT", "SET", "CHECKSUM", "CLASSIFY", "NETMAP", "TEE", "TRACE", 0 };
    int revisions[] = { 0, 1, 2, 3, 4 };
    int one = 1;

    // Some exist in later revisions only: the first that the kernel has counts.
    for (int kind = 0; kind < 2; kind++)
        for (const char **name = kind ? targets : matches; *name; name++) {
            struct { char name[29]; unsigned char revision; } q;
            unsigned found = 0;
            int s = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
            for (unsigned i = 0; i < sizeof revisions / sizeof *revisions; i++) {
                socklen_t l = sizeof q;
                memset(&q, 0, sizeof q);
                strcpy(q.name, *name);
                q.revision = revisions[i];
                if (getsockopt(s, IPPROTO_IP, 66 + kind, &q, &l) == 0) {
                    found = revisions[i];
                    break;
                }
            }
            close(s);
            extension(AF_INET, kind ? "target" : "match", 66 + kind, *name, found);
        }

    link_kind("dummy", 0);
    link_kind("ifb", 0);
    link_kind("wireguard", 0);
    link_kind("vxlan", IFLA_VXLAN_ID);
    link_kind("geneve", IFLA_GENEVE_ID);
    link_kind("vrf", IFLA_VRF_TABLE);
    static const char *schedulers[] = { "htb", "tbf", "netem", "fq", "fq_codel", "sfq", "prio", "ingress", "cake", 0 };
    for (const char **name = schedulers; *name; name++)
        scheduler(*name);

    int s = socket(AF_INET, SOCK_STREAM, 0);
    report("tcp:bbr", setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, "bbr", 3));
    report("ip:transparent", setsockopt(s, IPPROTO_IP, IP_TRANSPARENT, &one, sizeof one));
    report("mptcp", socket(AF_INET, SOCK_STREAM, 262));
    report("netlink:diag", socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG));
    report("netlink:xfrm", socket(AF_NETLINK, SOCK_RAW, NETLINK_XFRM));
    report("netlink:audit", socket(AF_NETLINK, SOCK_RAW, NETLINK_AUDIT));
    report("userfaultfd", syscall(SYS_userfaultfd, 1));
    report("memfd_secret", syscall(447, 0));
    report("landlock", syscall(444, 0, 0, 1));
    long mask[64] = { 0 };
    report("get_mempolicy", syscall(SYS_get_mempolicy, mask, 0, 0, 0, 0));
    report("set_mempolicy", syscall(SYS_set_mempolicy, 0, 0, 0));
    void *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int status;
    *(char *)page = 1;
    report("move_pages", syscall(SYS_move_pages, 0, 1L, &page, 0, &status, 0));
    report("madvise:mergeable", madvise(page, 4096, MADV_MERGEABLE));
    report("quotactl", syscall(SYS_quotactl, 0x800001 << 8, "/none", 0, mask) < 0 && errno == ENOSYS ? -1 : 0);
    report("swapoff", syscall(SYS_swapoff, "/none") < 0 && errno == ENOSYS ? -1 : 0);
    report("pressure", open("/proc/pressure/memory", O_RDONLY));
    report("config.gz", open("/proc/config.gz", O_RDONLY));
    errno = 0;
    report("modify_ldt", syscall(SYS_modify_ldt, 0, mask, sizeof mask));
    return 0;
}
