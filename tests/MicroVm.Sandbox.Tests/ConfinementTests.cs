using MicroVm.Linux.Native;
using MicroVm.Oci.Seccomp;
using MicroVm.Sandbox.Proxies;

namespace MicroVm.Sandbox.Tests;

/// <summary>The system calls that a container's process on the host keeps; what they leave of the process, ProxyConfinementTests looks at.</summary>
public sealed class ConfinementTests
{
    private const int Most = 138;
    private static readonly SeccompProfile Init = Confinement.Profile([Libc.CLONE_NEWNET], []);

    [Fact]
    public void WhatChangesTheHostIsNotAmongThem()
    {
        string[] forbidden =
        [
            "ptrace", "process_vm_readv", "process_vm_writev", "mount", "umount2", "move_mount", "open_tree", "fsopen", "pivot_root", "chroot", "bpf", "perf_event_open",
            "keyctl", "add_key", "request_key", "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "open_by_handle_at", "mknod", "mknodat",
            "setuid", "setresuid", "setgid", "setgroups", "capset", "swapon", "reboot", "userfaultfd", "io_uring_setup", "execveat", "link", "linkat", "symlink",
            "symlinkat", "chown", "fchown", "fchownat", "setxattr", "quotactl", "acct", "syslog", "iopl", "ioperm", "sethostname", "seccomp", "settimeofday", "clock_settime",
        ];
        Assert.DoesNotContain(forbidden, name => Init.Syscalls.ContainsKey(SyscallTable.All[name]));
        Assert.InRange(Init.Syscalls.Count, 1, Most);
    }

    [Theory]
    [InlineData("setns", 1, (ulong)Libc.CLONE_NEWNET, true)]
    [InlineData("setns", 1, (ulong)Libc.CLONE_NEWNS, false)]
    [InlineData("setns", 1, 0UL, false)]
    [InlineData("unshare", 0, (ulong)Libc.CLONE_FS, true)]
    [InlineData("unshare", 0, (ulong)Libc.CLONE_NEWUSER, false)]
    [InlineData("unshare", 0, (ulong)(Libc.CLONE_NEWUSER | Libc.CLONE_FS), false)]
    [InlineData("socket", 0, 1UL, true)]
    [InlineData("socket", 0, 17UL, false)]
    [InlineData("socket", 0, 38UL, false)]
    [InlineData("socket", 0, 40UL, false)]
    public void ArgumentsDecideWhereTheyMatter(string name, int argument, ulong value, bool allowed)
    {
        SyscallRules rules = Init.Syscalls[SyscallTable.All[name]];
        Assert.Null(rules.Unconditional);
        Assert.All(rules.Conditional, r => Assert.Equal(argument, Assert.Single(r.Conditions).Index));
        Assert.Equal(allowed, rules.Conditional.Exists(r => r.Conditions[0].Holds(value)));
    }

    [Fact]
    public void WhoOwnsAVmMayFollowTheHostsMountsAndNoMore()
    {
        SeccompProfile sandbox = Confinement.OfSandbox;
        Assert.Equal(
            new[] { "open_tree", "mount_setattr", "mount", "umount2", "move_mount", "pivot_root", "inotify_init1", "inotify_add_watch", "kcmp" }.Select(name => SyscallTable.All[name]).Order(),
            sandbox.Syscalls.Keys.Except(Init.Syscalls.Keys).Order());
        List<ConditionalRule> unshare = sandbox.Syscalls[SyscallTable.All["unshare"]].Conditional;
        Assert.Contains(unshare, r => r.Conditions[0].Holds(Libc.CLONE_FS | Libc.CLONE_NEWNS));
        Assert.DoesNotContain(unshare, r => r.Conditions[0].Holds(Libc.CLONE_NEWUSER) || r.Conditions[0].Holds(Libc.CLONE_NEWNS));
        Assert.NotEmpty(SeccompCompiler.Compile(sandbox));
    }

    [Fact]
    public void AnExecMayLeaveTheViewOfFiles()
    {
        SeccompProfile exec = Confinement.Profile([Libc.CLONE_NEWNS], ["umount2"]);
        Assert.True(exec.Syscalls.ContainsKey(SyscallTable.All["umount2"]));
        Assert.DoesNotContain(exec.Syscalls[SyscallTable.All["setns"]].Conditional, r => r.Conditions[0].Holds(Libc.CLONE_NEWNET));
        Assert.NotEmpty(SeccompCompiler.Compile(exec));
    }
}
