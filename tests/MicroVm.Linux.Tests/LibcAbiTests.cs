using System.Reflection;
using MicroVm.Linux.Native;
using MicroVm.Tests.Shared;
using Xunit;

namespace MicroVm.Linux.Tests;

/// <summary>Every constant and struct of src/MicroVm.Linux/Native against libc's and the kernel's headers.</summary>
public class LibcAbiTests
{
    /// <summary>libc's headers first; then the kernel's, some of which cannot be included beside libc's.</summary>
    private static readonly string[] Headers =
    [
        """
        #define _GNU_SOURCE
        #include <fcntl.h>
        #include <unistd.h>
        #include <errno.h>
        #include <signal.h>
        #include <sched.h>
        #include <limits.h>
        #include <poll.h>
        #include <spawn.h>
        #include <dirent.h>
        #include <termios.h>
        #include <sys/syscall.h>
        #include <sys/types.h>
        #include <sys/uio.h>
        #include <sys/mman.h>
        #include <sys/epoll.h>
        #include <sys/eventfd.h>
        #include <sys/timerfd.h>
        #include <sys/signalfd.h>
        #include <sys/inotify.h>
        #include <sys/stat.h>
        #include <sys/statfs.h>
        #include <sys/statvfs.h>
        #include <sys/socket.h>
        #include <sys/un.h>
        #include <sys/ioctl.h>
        #include <sys/mount.h>
        #include <sys/prctl.h>
        #include <sys/wait.h>
        #include <sys/resource.h>
        #include <sys/random.h>
        #include <sys/reboot.h>
        #include <sys/xattr.h>
        #include <sys/file.h>
        #include <sys/fsuid.h>
        #include <sys/sendfile.h>
        #include <sys/sysmacros.h>
        #include <sys/utsname.h>
        #include <net/if.h>
        #include <netinet/in.h>
        #include <netinet/tcp.h>
        #include <linux/openat2.h>
        #include <linux/vm_sockets.h>
        #include <linux/close_range.h>
        """,
        """
        #include <linux/fs.h>
        #include <linux/mount.h>
        #include <linux/stat.h>
        #include <linux/fcntl.h>
        #include <linux/capability.h>
        #include <linux/seccomp.h>
        #include <linux/filter.h>
        #include <linux/audit.h>
        #include <linux/prctl.h>
        #include <linux/securebits.h>
        #include <linux/netlink.h>
        #include <linux/rtnetlink.h>
        #include <linux/if_link.h>
        #include <linux/if_arp.h>
        #include <linux/fib_rules.h>
        #include <linux/if_tun.h>
        #include <linux/veth.h>
        #include <linux/pkt_sched.h>
        #include <linux/pkt_cls.h>
        #include <linux/tc_act/tc_mirred.h>
        #include <linux/if_ether.h>
        #include <linux/loop.h>
        #include <linux/pidfd.h>
        #include <linux/sched.h>
        #include <linux/kcmp.h>
        #include <linux/futex.h>
        #include <linux/fuse.h>
        #include <linux/ioprio.h>
        #include <linux/bpf.h>
        #include <linux/magic.h>
        #include <linux/random.h>
        #include <linux/sched/types.h>
        #include <linux/rtc.h>
        #include <linux/reboot.h>
        #include <asm/unistd.h>
        """,
    ];

    /// <summary>C types that are neither <c>struct name</c> nor our <c>name_t</c> for a struct with a function's name.</summary>
    private static readonly Dictionary<string, string> TypeNames = new()
    {
        ["sigset_t"] = "sigset_t",
        ["siginfo_t"] = "siginfo_t",
        ["cpu_set_t"] = "cpu_set_t",
        ["posix_spawn_file_actions_t"] = "posix_spawn_file_actions_t",
        ["posix_spawnattr_t"] = "posix_spawnattr_t",
    };

    /// <summary>Names that the headers do not know or know otherwise: with the reason.</summary>
    private static readonly Dictionary<string, string> NotInHeaders = new()
    {
        ["O_LARGEFILE"] = "0 in glibc, which hides it on x86-64; the kernel's value is what FUSE requests carry",
    };

    [SkippableFact]
    public void Constants_equal_the_headers()
    {
        Skip.If(AbiOracle.Missing is not null, AbiOracle.Missing);
        List<string> differences = AbiOracle.CompareConstants(typeof(Libc), Headers);
        differences.RemoveAll(d => NotInHeaders.ContainsKey(d.Split(':')[0]));
        Assert.Empty(differences);
    }

    [SkippableFact]
    public void Error_numbers_equal_the_headers()
    {
        Skip.If(AbiOracle.Missing is not null, AbiOracle.Missing);
        Assert.Equal(["OK: no header declares it"], AbiOracle.CompareConstants(typeof(Errno), Headers));
    }

    [SkippableFact]
    public void Structs_have_the_headers_sizes_and_offsets()
    {
        Skip.If(AbiOracle.Missing is not null, AbiOracle.Missing);
        Type[] structs = [.. typeof(Libc).GetNestedTypes(BindingFlags.Public).Where(t => t.IsValueType && !t.IsEnum && !NotInHeaders.ContainsKey(t.Name))];
        Assert.Contains(typeof(Libc.iovec), structs);
        Assert.Equal("", string.Join('\n', structs.SelectMany(t => AbiOracle.CompareStruct(t, Headers, CName(t.Name)))));
    }

    private static string CName(string name) =>
        TypeNames.GetValueOrDefault(name) ?? "struct " + (name.EndsWith("_t", StringComparison.Ordinal) ? name[..^2] : name);
}
