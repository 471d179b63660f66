using FsCheck;
using FsCheck.Fluent;
using MicroVm.Oci.Config;
using MicroVm.Oci.Devices;
using MicroVm.Oci.Tests.Support;

namespace MicroVm.Oci.Tests;

/// <summary>Device rules and nodes, and the compiled device program against a plain evaluator and the kernel's verifier.</summary>
public sealed class DeviceTests
{
    private static readonly Gen<DeviceAccessRule> Rules =
        from allow in Gen.Elements(true, false)
        from type in Gen.Elements(DeviceType.Any, DeviceType.Block, DeviceType.Character)
        from major in Gen.Elements(-1, 0, 1, 5, 10)
        from minor in Gen.Elements(-1, 0, 3, 200)
        from access in Gen.Choose(0, 7)
        select new DeviceAccessRule(allow, type, major, minor, (DeviceAccess)access);

    private static readonly Gen<(DeviceType Type, DeviceAccess Access, int Major, int Minor)> Requests =
        from type in Gen.Elements(DeviceType.Block, DeviceType.Character)
        from access in Gen.Choose(1, 7)
        from major in Gen.Elements(0, 1, 5, 10, 77)
        from minor in Gen.Elements(0, 3, 200, 5)
        select (type, (DeviceAccess)access, major, minor);

    [Fact]
    public void CompiledProgramDecidesAsTheRulesSay() =>
        Prop.ForAll(Gen.ListOf(Rules).ToArbitrary(), Gen.ArrayOf(Requests, 50).ToArbitrary(), (rules, requests) =>
        {
            List<DeviceAccessRule> list = [.. rules];
            List<EbpfInstruction> program = DeviceFilterCompiler.CompileProgram(list);
            foreach ((DeviceType type, DeviceAccess access, int major, int minor) in requests)
            {
                bool expected = new[] { DeviceAccess.MakeNode, DeviceAccess.Read, DeviceAccess.Write }
                    .Where(bit => (access & bit) != 0)
                    .All(bit => list.FindLast(r => r.Covers(type, major, minor) && (r.Access & bit) != 0) is { Allow: true });
                ulong actual = BpfInterpreter.RunDevice(program, type, access, (uint)major, (uint)minor);
                Assert.Equal(expected ? 1UL : 0UL, actual);
            }

            return true;
        }).QuickCheckThrowOnFailure();

    [Fact]
    public void DefaultsAreAllowedAfterADenyOfAll()
    {
        List<EbpfInstruction> program = DeviceFilterCompiler.CompileProgram(DeviceRules.Resolve([new DeviceRule { Allow = false, Access = "rwm" }]));
        Assert.Equal(1UL, BpfInterpreter.RunDevice(program, DeviceType.Character, DeviceAccess.Read | DeviceAccess.Write, 1, 3));
        Assert.Equal(1UL, BpfInterpreter.RunDevice(program, DeviceType.Block, DeviceAccess.MakeNode, 8, 0));
        Assert.Equal(0UL, BpfInterpreter.RunDevice(program, DeviceType.Block, DeviceAccess.Read, 8, 0));
        Assert.Equal(0UL, BpfInterpreter.RunDevice(program, DeviceType.Character, DeviceAccess.Read, 1, 1));
    }

    [SkippableFact]
    public void KernelsVerifierTakesTheProgram()
    {
        DeviceRule[] rules =
        [
            new() { Allow = false, Access = "rwm" },
            new() { Allow = true, Type = "c", Major = 10, Minor = 229, Access = "rw" },
            new() { Allow = false, Type = "b", Major = 8, Access = "w" },
            new() { Allow = true, Type = "a", Access = "rwm" },
            new() { Allow = false, Type = "c", Major = 4, Access = "m" },
        ];
        string file = Path.GetTempFileName();
        try
        {
            for (int count = 0; count <= rules.Length; count++)
            {
                File.WriteAllBytes(file, DeviceFilterCompiler.Compile(DeviceRules.Resolve(rules[..count])));
                (int status, string output) = CProgram.Run(LoadProgram, file);
                Skip.If(status == 77, "bpf(2) is not available here: " + output);
                Assert.True(status == 0, output);
            }
        }
        finally
        {
            File.Delete(file);
        }
    }

    private const string LoadProgram = """
        #include <errno.h>
        #include <fcntl.h>
        #include <linux/bpf.h>
        #include <stdio.h>
        #include <string.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        int main(int argc, char **argv) {
            static char insns[1 << 16], log[1 << 16];
            int n = read(open(argv[1], O_RDONLY), insns, sizeof insns);
            union bpf_attr attr = { .prog_type = BPF_PROG_TYPE_CGROUP_DEVICE, .insn_cnt = n / 8, .insns = (unsigned long)insns,
                .license = (unsigned long)"Apache", .log_level = 1, .log_size = sizeof log, .log_buf = (unsigned long)log };
            if (syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof attr) >= 0) return 0;
            printf("%s\n%s\n", strerror(errno), log);
            return errno == EPERM || errno == ENOSYS || (errno == EINVAL && !log[0]) ? 77 : 1;
        }
        """;

    [Fact]
    public void OtherLettersOfAnAccessArePassedOverAsByRunc() =>
        Assert.Equal(DeviceAccess.Read | DeviceAccess.Write, DeviceRules.Resolve([new DeviceRule { Type = "c", Major = 1, Minor = 11, Access = "rwa" }])[0].Access);

    [Fact]
    public void MalformedRulesAreNamed()
    {
        Assert.Contains("type x", Refused(new DeviceRule { Type = "x" }), StringComparison.Ordinal);
        Assert.Contains("\"xa\"", Refused(new DeviceRule { Access = "xa" }), StringComparison.Ordinal);
        Assert.Contains("major: -2", Refused(new DeviceRule { Major = -2 }), StringComparison.Ordinal);
        Assert.Contains("minor: 4294967296", Refused(new DeviceRule { Minor = 1L << 32 }), StringComparison.Ordinal);
    }

    [Fact]
    public void OwnNodesReplaceDefaults()
    {
        List<DeviceNode> nodes = DeviceNodes.Resolve(
            [new Device { Path = "/dev/null", Type = "c", Major = 1, Minor = 3, FileMode = 33188, Uid = 5, Gid = 6 }, new Device { Path = "/dev/pipe", Type = "p" }]);
        Assert.Equal(new DeviceNode("/dev/null", 'c', 1, 3, 420, 5, 6), Assert.Single(nodes, n => n.Path == "/dev/null"));
        Assert.Equal(new DeviceNode("/dev/pipe", 'p', 0, 0, 438, 0, 0), nodes[1]);
        Assert.Equal(7, nodes.Count);
    }

    [Theory]
    [InlineData("dev/x", "c", 1L, 3L, "absolute")]
    [InlineData("/dev/x", "z", 1L, 3L, "invalid device type \"z\"")]
    [InlineData("/dev/x", "c", null, 3L, "major number")]
    [InlineData("/dev/x", "b", 4096L, 3L, "major number")]
    public void MalformedNodesAreNamed(string path, string type, long? major, long? minor, string named)
    {
        SpecException e = Assert.Throws<SpecException>(() => DeviceNodes.Resolve([new Device { Path = path, Type = type, Major = major, Minor = minor }]));
        Assert.Contains(named, e.Message, StringComparison.Ordinal);
    }

    private static string Refused(DeviceRule rule) => Assert.Throws<SpecException>(() => DeviceRules.Resolve([rule])).Message;
}
