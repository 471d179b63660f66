using MicroVm.Linux.Native;
using MicroVm.Oci.Seccomp;
using MicroVm.Sandbox.Proxies;

namespace MicroVm.Sandbox.Tests;

/// <summary>What the shim's threads that read from a guest may do; that they have no more, the shim's own suite looks at.</summary>
public sealed class GuestThreadTests
{
    private const int Most = 33;
    private static readonly SeccompProfile Profile = GuestThread.Profile;

    [Fact]
    public void NothingCanBeOpenedConnectedExecutedOrStarted()
    {
        string[] forbidden =
        [
            "open", "openat", "openat2", "creat", "socket", "connect", "bind", "accept", "accept4", "sendmsg", "recvmsg", "sendto", "execve", "execveat", "clone", "clone3", "fork",
            "vfork", "unlink", "unlinkat", "rename", "renameat2", "mkdir", "mkdirat", "mknodat", "chmod", "fchmod", "chown", "mount", "umount2", "setns", "unshare", "ptrace",
            "bpf", "capset", "prctl", "seccomp", "ioctl", "fcntl", "dup", "dup2", "dup3", "kill", "pidfd_send_signal", "pidfd_getfd", "process_vm_writev", "setuid", "setresuid",
            "chroot", "pivot_root", "memfd_create", "io_uring_setup",
        ];
        Assert.DoesNotContain(forbidden, name => Profile.Syscalls.ContainsKey(SyscallTable.All[name]));
        Assert.InRange(Profile.Syscalls.Count, 1, Most);
        Assert.NotEmpty(SeccompCompiler.Compile(Profile));
    }

    [Theory]
    [InlineData("mmap", 2, 3UL, true)]
    [InlineData("mmap", 2, 7UL, false)]
    [InlineData("mprotect", 2, 1UL, true)]
    [InlineData("mprotect", 2, 5UL, false)]
    public void NoMemoryBecomesExecutable(string name, int argument, ulong value, bool allowed)
    {
        ConditionalRule rule = Assert.Single(Profile.Syscalls[SyscallTable.All[name]].Conditional);
        ArgCondition condition = Assert.Single(rule.Conditions);
        Assert.Equal((argument, allowed), (condition.Index, condition.Holds(value)));
    }

    [Fact]
    public void NoOtherProcessIsSignalled()
    {
        ConditionalRule rule = Assert.Single(Profile.Syscalls[SyscallTable.All["tgkill"]].Conditional);
        Assert.True(rule.Conditions[0].Holds((ulong)Libc.getpid()));
        Assert.False(rule.Conditions[0].Holds(1));
    }
}
