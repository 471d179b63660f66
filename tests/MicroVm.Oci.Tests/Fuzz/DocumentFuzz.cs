using System.Text;
using System.Text.Json;
using MicroVm.Json;
using MicroVm.Oci.Cgroups;
using MicroVm.Oci.Config;
using MicroVm.Oci.Seccomp;
using MicroVm.Oci.Tests.Support;
using MicroVm.Tests.Shared.Fuzz;

namespace MicroVm.Oci.Tests.Fuzz;

/// <summary>Documents of the specification with wrong members: resolved, or refused with what is wrong.</summary>
public sealed class DocumentFuzz
{
    private const string Profile =
        """
        {"ociVersion":"1.0.2","linux":{"seccomp":{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],
        "flags":["SECCOMP_FILTER_FLAG_LOG"],"syscalls":[{"names":["read","write","open","personality"],"action":"SCMP_ACT_ALLOW"},
        {"names":["clone"],"action":"SCMP_ACT_ERRNO","errnoRet":1,"args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"},{"index":5,"value":18446744073709551615,"op":"SCMP_CMP_GE"}]},
        {"names":["socket","openat2"],"action":"SCMP_ACT_KILL_PROCESS","args":[{"index":1,"value":40,"op":"SCMP_CMP_NE"}]}]}}}
        """;

    private const string Limits =
        """
        {"memory":{"limit":67108864,"reservation":33554432,"swap":134217728,"checkBeforeUpdate":true,"swappiness":10},"cpu":{"shares":1024,"quota":50000,"period":100000,"burst":10000,"cpus":"0-1","mems":"0","idle":0},
        "pids":{"limit":64},"blockIO":{"weight":100,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1000}]},"hugepageLimits":[{"pageSize":"2MB","limit":0}],"network":{"classID":1,"priorities":[{"name":"eth0","priority":1}]},
        "rdma":{"mlx":{"hcaHandles":1}},"unified":{"memory.high":"max"},"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"r"}]}
        """;

    [Fact]
    public void SeccompProfiles() => Fuzzing.Run("seccomp", random =>
    {
        try
        {
            Spec spec = SpecReader.Parse(Spoiling.Json(Profile, random), "config.json", SpecDocument.Config);
            if (SeccompResolver.Resolve(spec.Linux?.Seccomp) is not { } profile)
            {
                return;
            }

            IReadOnlyList<BpfInstruction> program = SeccompCompiler.CompileProgram(profile);
            ulong[] arguments = [.. Enumerable.Range(0, 6).Select(_ => (ulong)random.NextInt64(long.MinValue, long.MaxValue))];
            _ = BpfInterpreter.Run(program, new SeccompCall((uint)random.Next(500), SeccompAbi.AUDIT_ARCH_X86_64, arguments));
        }
        catch (SpecException e)
        {
            Assert.NotEqual("", e.Message);
        }
    });

    /// <summary>Whatever the tables of members read, the serializer reads so, too; what they refuse, it refuses.</summary>
    [Fact]
    public void Reading() => Fuzzing.Run("reading", random =>
    {
        byte[] json = Spoiling.Json(random.Next(2) == 0 ? Profile : DefaultSpec.Json, random);
        Spec? read = SpecDocument.Config.TryRead(json);
        Spec? expected = null;
        try
        {
            expected = JsonSerializer.Deserialize(json, SpecJson.Default.Spec);
        }
        catch (JsonException)
        {
            // Both refuse.
        }

        Assert.Equal(JsonSerializer.Serialize(expected, SpecJson.Default.Spec), JsonSerializer.Serialize(read, SpecJson.Default.Spec));
    });

    [Fact]
    public void Resources() => Fuzzing.Run("resources", random =>
    {
        try
        {
            Resources current = SpecReader.Parse(Encoding.UTF8.GetBytes(Limits), "resources", SpecDocument.Resources);
            Resources change = SpecReader.Parse(Spoiling.Json(Limits, random), "resources", SpecDocument.Resources);
            _ = ResourcesUpdate.Resolve(current, change, []);
        }
        catch (SpecException e)
        {
            Assert.NotEqual("", e.Message);
        }
    });
}
