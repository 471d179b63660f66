using FsCheck;
using FsCheck.Fluent;
using MicroVm.Oci.Config;
using MicroVm.Oci.Seccomp;
using MicroVm.Oci.Tests.Support;

namespace MicroVm.Oci.Tests;

/// <summary>Seccomp profiles: their meaning, and the compiled filter against a plain evaluator and the kernel itself.</summary>
public sealed class SeccompTests
{
    private const uint Enosys = SeccompAbi.SECCOMP_RET_ERRNO | 38;
    private const uint Eperm = SeccompAbi.SECCOMP_RET_ERRNO | 1;
    private static readonly ulong[] NoArgs = new ulong[6];

    // Edges of both halves, where a wrong comparison shows.
    private static readonly Gen<ulong> Values =
        from high in Gen.Elements(0u, 1u, 0x7fffffffu, 0x80000000u, uint.MaxValue)
        from low in Gen.Elements(0u, 1u, 2u, 0x7fffffffu, 0x80000000u, uint.MaxValue)
        select ((ulong)high << 32) | low;

    private static readonly Gen<SeccompArg> Args =
        from index in Gen.Choose(0, 5)
        from op in Gen.Elements(SeccompResolver.Operators.ToArray())
        from value in Values
        from valueTwo in Values
        select new SeccompArg { Index = (uint)index, Op = op, Value = value, ValueTwo = valueTwo };

    private static readonly string[] SomeNames =
        ["read", "write", "open", "close", "clone", "personality", "socket", "openat2", "clone3", "statmount", "no_such_call"];

    private static readonly Gen<SeccompSyscall> Rules =
        from names in Gen.NonEmptyListOf(Gen.Elements(SomeNames))
        from action in Gen.Elements(SeccompResolver.Actions.ToArray())
        from errno in Gen.Elements<uint?>(null, 0, 13, 4095)
        from args in Gen.ListOf(Args)
        select new SeccompSyscall { Names = [.. names], Action = action, ErrnoRet = errno, Args = [.. args.Take(4)] };

    private static readonly Gen<Config.Seccomp> Profiles =
        from action in Gen.Elements("SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP", "SCMP_ACT_LOG")
        from architectures in Gen.Elements<string[]>([], ["SCMP_ARCH_X86_64"], ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])
        from rules in Gen.ListOf(Rules)
        select new Config.Seccomp { DefaultAction = action, Architectures = [.. architectures], Syscalls = [.. rules] };

    private static readonly Gen<SeccompCall> Calls =
        from number in Gen.OneOf(
            Gen.Elements(SomeNames).Select(n => SyscallTable.TryGetNumber(n, out int i) ? (uint)i : 450),
            Gen.Elements(0u, 1u, 334u, 337u, 423u, 470u, 1000u, 0x3fffffffu, 0x40000000u, 0x40000001u, 0xfffffffeu, uint.MaxValue))
        from architecture in Gen.Elements(
            SeccompAbi.AUDIT_ARCH_X86_64, SeccompAbi.AUDIT_ARCH_X86_64, SeccompAbi.AUDIT_ARCH_X86_64, SeccompAbi.AUDIT_ARCH_I386, 0xC00000B7)
        from args in Gen.ArrayOf(Values, 6)
        select new SeccompCall(number, architecture, args);

    [Fact]
    public void CompiledFilterDecidesAsTheProfileSays() =>
        Prop.ForAll(Profiles.ToArbitrary(), Gen.ArrayOf(Calls, 40).ToArbitrary(), (config, calls) =>
        {
            SeccompProfile profile = SeccompResolver.Resolve(config)!;
            IReadOnlyList<BpfInstruction> program = SeccompCompiler.CompileProgram(profile);
            foreach (SeccompCall call in calls)
            {
                uint expected = Evaluate(config, call);
                uint actual = BpfInterpreter.Run(program, call);
                Assert.True(expected == actual, $"{call.Number} on {call.Architecture:x}: {expected:x} expected, {actual:x} from the filter");
            }

            return true;
        }).QuickCheckThrowOnFailure();

    /// <summary>A second, direct reading of a profile: runc's and libseccomp's rules, without ranges or programs.</summary>
    private static uint Evaluate(Config.Seccomp config, SeccompCall call)
    {
        uint fallback = Action(config.DefaultAction!, null);
        bool x86 = config.Architectures!.Contains("SCMP_ARCH_X86"), x32 = config.Architectures.Contains("SCMP_ARCH_X32");
        if (call.Architecture != SeccompAbi.AUDIT_ARCH_X86_64)
        {
            return call.Architecture == SeccompAbi.AUDIT_ARCH_I386 && x86 ? Enosys : 0;
        }

        if (call.Number == uint.MaxValue)
        {
            return fallback;
        }

        if ((call.Number & 0x40000000) != 0 || call.Number > 0x40000000)
        {
            return x32 ? Enosys : 0;
        }

        List<SeccompSyscall> about = [.. config.Syscalls!.Where(r => Action(r.Action!, r.ErrnoRet) != fallback && r.Names!.Any(n => Number(n) == call.Number))];
        if (about.Find(r => r.Args!.Count == 0) is { } whole)
        {
            return Action(whole.Action!, whole.ErrnoRet);
        }

        foreach (SeccompSyscall rule in about)
        {
            bool several = rule.Args!.GroupBy(a => a.Index).Any(g => g.Count() > 1);
            if (several ? rule.Args!.Exists(a => Holds(a, call)) : rule.Args!.TrueForAll(a => Holds(a, call)))
            {
                return Action(rule.Action!, rule.ErrnoRet);
            }
        }

        long last = config.Syscalls!.SelectMany(r => r.Names!).Select(n => (long)(Number(n) ?? 0)).DefaultIfEmpty(-1).Max();
        bool named = config.Syscalls!.SelectMany(r => r.Names!).Any(n => Number(n) is not null);
        bool strict = config.DefaultAction is not ("SCMP_ACT_ALLOW" or "SCMP_ACT_LOG");
        return named && strict && call.Number > last ? Enosys : fallback;
    }

    private static uint? Number(string name) => SyscallTable.TryGetNumber(name, out int n) ? (uint)n : null;

    private static bool Holds(SeccompArg arg, SeccompCall call)
    {
        ulong actual = call.Args[arg.Index!.Value], value = arg.Value!.Value;
        return arg.Op switch
        {
            "SCMP_CMP_NE" => actual != value,
            "SCMP_CMP_LT" => actual < value,
            "SCMP_CMP_LE" => actual <= value,
            "SCMP_CMP_EQ" => actual == value,
            "SCMP_CMP_GE" => actual >= value,
            "SCMP_CMP_GT" => actual > value,
            _ => (actual & value) == (arg.ValueTwo!.Value & value),
        };
    }

    private static uint Action(string name, uint? errno) => name switch
    {
        "SCMP_ACT_ALLOW" => 0x7fff0000,
        "SCMP_ACT_LOG" => 0x7ffc0000,
        "SCMP_ACT_TRACE" => 0x7ff00000 | (errno ?? 1),
        "SCMP_ACT_ERRNO" => 0x00050000 | (errno ?? 1),
        "SCMP_ACT_TRAP" => 0x00030000,
        "SCMP_ACT_KILL_PROCESS" => 0x80000000,
        _ => 0,
    };

    [Fact]
    public void ProfileOfEveryCallWithArgumentsCompilesWithLongJumps()
    {
        Config.Seccomp config = new()
        {
            DefaultAction = "SCMP_ACT_ERRNO",
            Syscalls =
            [
                new SeccompSyscall
                {
                    Names = [.. SyscallTable.All.Keys],
                    Action = "SCMP_ACT_ALLOW",
                    Args = [new SeccompArg { Index = 2, Op = "SCMP_CMP_GT", Value = 1UL << 40 }],
                },
            ],
        };
        IReadOnlyList<BpfInstruction> program = SeccompCompiler.CompileProgram(SeccompResolver.Resolve(config)!);
        Assert.Contains(program, i => i.Code == BpfInstruction.Jump && i.Operand > 255);
        foreach (int number in SyscallTable.All.Values)
        {
            Assert.Equal(Eperm, BpfInterpreter.Run(program, new SeccompCall((uint)number, SeccompAbi.AUDIT_ARCH_X86_64, NoArgs)));
            Assert.Equal(
                SeccompAbi.SECCOMP_RET_ALLOW,
                BpfInterpreter.Run(program, new SeccompCall((uint)number, SeccompAbi.AUDIT_ARCH_X86_64, [0, 0, ulong.MaxValue, 0, 0, 0])));
        }
    }

    [Fact]
    public void TooLongProgramIsRefused()
    {
        Config.Seccomp config = new()
        {
            DefaultAction = "SCMP_ACT_ERRNO",
            Syscalls = [.. Enumerable.Range(0, 1000).Select(i => new SeccompSyscall
            {
                Names = ["read"], Action = "SCMP_ACT_ALLOW", Args = [new SeccompArg { Index = 0, Op = "SCMP_CMP_EQ", Value = (ulong)i }],
            })],
        };
        Assert.Contains("BPF instructions", Refused(config), StringComparison.Ordinal);
    }

    [Fact]
    public void CallsNewerThanTheProfileDoNotExist()
    {
        Config.Seccomp config = new() { DefaultAction = "SCMP_ACT_ERRNO", Syscalls = [new() { Names = ["read", "openat2"], Action = "SCMP_ACT_ALLOW" }] };
        Assert.Equal(437, SeccompResolver.Resolve(config)!.LastKnown);
        config.DefaultErrnoRet = 38;
        Assert.Null(SeccompResolver.Resolve(config)!.LastKnown);
        config.DefaultAction = "SCMP_ACT_ALLOW";
        Assert.Null(SeccompResolver.Resolve(config)!.LastKnown);
    }

    [Fact]
    public void FlagsAreResolvedAndDefaultAsInRunc()
    {
        Config.Seccomp config = new() { DefaultAction = "SCMP_ACT_ALLOW" };
        Assert.Equal(4u, SeccompResolver.Resolve(config)!.Flags);
        config.Flags = [];
        Assert.Equal(0u, SeccompResolver.Resolve(config)!.Flags);
        config.Flags = ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"];
        Assert.Equal(6u, SeccompResolver.Resolve(config)!.Flags);
    }

    [Fact]
    public void EmptyProfileIsNone()
    {
        Assert.Null(SeccompResolver.Resolve(null));
        Assert.Null(SeccompResolver.Resolve(new Config.Seccomp()));
    }

    [Fact]
    public void WhatCannotBeDoneIsRefusedByName()
    {
        Assert.Contains("SCMP_ACT_NOTIFY", Refused(new() { DefaultAction = "SCMP_ACT_ALLOW", Syscalls = [new() { Names = ["mount"], Action = "SCMP_ACT_NOTIFY" }] }), StringComparison.Ordinal);
        Assert.Contains("listenerPath", Refused(new() { DefaultAction = "SCMP_ACT_ALLOW", ListenerPath = "/run/x" }), StringComparison.Ordinal);
        Assert.Contains("SCMP_ACT_DANCE", Refused(new() { DefaultAction = "SCMP_ACT_DANCE" }), StringComparison.Ordinal);
        Assert.Contains("SCMP_ARCH_VAX", Refused(new() { DefaultAction = "SCMP_ACT_ALLOW", Architectures = ["SCMP_ARCH_VAX"] }), StringComparison.Ordinal);
        Assert.Contains("SOME_FLAG", Refused(new() { DefaultAction = "SCMP_ACT_ALLOW", Flags = ["SOME_FLAG"] }), StringComparison.Ordinal);
        Assert.Contains("syscalls[0].names", Refused(new() { DefaultAction = "SCMP_ACT_ALLOW", Syscalls = [new() { Action = "SCMP_ACT_LOG" }] }), StringComparison.Ordinal);
        Assert.Contains("args[0].index", Refused(new() { DefaultAction = "SCMP_ACT_ALLOW", Syscalls = [new() { Names = ["read"], Action = "SCMP_ACT_LOG", Args = [new() { Index = 6, Op = "SCMP_CMP_EQ" }] }] }), StringComparison.Ordinal);
        Assert.Contains("SCMP_CMP_ODD", Refused(new() { DefaultAction = "SCMP_ACT_ALLOW", Syscalls = [new() { Names = ["read"], Action = "SCMP_ACT_LOG", Args = [new() { Index = 0, Op = "SCMP_CMP_ODD" }] }] }), StringComparison.Ordinal);
    }

    [SkippableFact]
    public void KernelTakesTheFilterAndActsOnIt()
    {
        Config.Seccomp config = new()
        {
            DefaultAction = "SCMP_ACT_ALLOW",
            Architectures = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            Syscalls =
            [
                new() { Names = ["getppid"], Action = "SCMP_ACT_ERRNO", ErrnoRet = 73 },
                new() { Names = ["personality"], Action = "SCMP_ACT_ERRNO", Args = [new() { Index = 0, Op = "SCMP_CMP_NE", Value = 0xffffffff }] },
                new() { Names = ["lseek"], Action = "SCMP_ACT_ERRNO", ErrnoRet = 5, Args = [new() { Index = 1, Op = "SCMP_CMP_MASKED_EQ", Value = 0xff_0000_0000, ValueTwo = 0x12_0000_0000 }] },
                new() { Names = ["getpgrp"], Action = "SCMP_ACT_KILL_PROCESS" },
            ],
        };
        string file = Path.GetTempFileName();
        try
        {
            File.WriteAllBytes(file, SeccompCompiler.Compile(SeccompResolver.Resolve(config)!));
            (int status, string output) = CProgram.Run(InstallAndTry, file);
            Skip.If(status == 77, "seccomp filters cannot be installed here");
            Assert.Equal("getppid 73\npersonality-query 0\npersonality-set 1\nseek-masked 5\nseek-other 0\ngetpgrp signal 31\n", output);
        }
        finally
        {
            File.Delete(file);
        }
    }

    private const string InstallAndTry = """
        #include <errno.h>
        #include <fcntl.h>
        #include <linux/filter.h>
        #include <linux/seccomp.h>
        #include <stdio.h>
        #include <string.h>
        #include <sys/prctl.h>
        #include <sys/syscall.h>
        #include <sys/wait.h>
        #include <unistd.h>
        static void try(const char *name, long result) { printf("%s %d\n", name, result < 0 ? errno : 0); }
        int main(int argc, char **argv) {
            static struct sock_filter filter[4096];
            int fd = open(argv[1], O_RDONLY);
            struct sock_fprog program = { read(fd, filter, sizeof filter) / sizeof *filter, filter };
            setvbuf(stdout, NULL, _IONBF, 0);
            if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
                perror("seccomp");
                return errno == EINVAL && program.len ? 1 : 77;
            }
            try("getppid", syscall(SYS_getppid));
            try("personality-query", syscall(SYS_personality, 0xffffffffUL));
            try("personality-set", syscall(SYS_personality, 8UL));
            try("seek-masked", syscall(SYS_lseek, fd, 0x341200001230UL, 0));
            try("seek-other", syscall(SYS_lseek, fd, 0x10UL, 0));
            pid_t child = fork();
            if (!child) { syscall(SYS_getpgrp); _exit(0); }
            int status;
            waitpid(child, &status, 0);
            printf("getpgrp %s %d\n", WIFSIGNALED(status) ? "signal" : "exit", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
            return 0;
        }
        """;

    private static string Refused(Config.Seccomp config) =>
        Assert.Throws<SpecException>(() => SeccompCompiler.Compile(SeccompResolver.Resolve(config)!)).Message;
}
