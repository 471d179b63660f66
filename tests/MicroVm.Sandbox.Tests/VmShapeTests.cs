using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Sandbox.Tests;

/// <summary>Size of a VM from flags, annotations and limits.</summary>
public sealed class VmShapeTests
{
    private const long HostMemory = 4096;
    private const int HostCpus = 4;

    [Theory]
    [InlineData(null, 1024)]
    [InlineData(-1L, 1024)]
    [InlineData(16L << 20, 128)]
    [InlineData(64L << 20, 128)]
    [InlineData((64L << 20) + 1, 129)]
    [InlineData(1L << 30, 1088)]
    [InlineData(long.MaxValue, 4096)]
    public void MemoryFollowsTheLimit(long? limit, int expected) =>
        Assert.Equal(expected, Resolve(new Resources { Memory = new() { Limit = limit } }).MemoryMiB);

    [Theory]
    [InlineData(null, null, null, 1)]
    [InlineData(-1L, null, null, 1)]
    [InlineData(50000L, 100000UL, null, 1)]
    [InlineData(100001L, 100000UL, null, 2)]
    [InlineData(900000L, 100000UL, null, 4)]
    [InlineData(300000L, null, "0-1", 2)]
    [InlineData(long.MaxValue, 1UL, null, 4)]
    public void VcpusFollowTheQuota(long? quota, ulong? period, string? cpus, int expected) =>
        Assert.Equal(expected, Resolve(new Resources { Cpu = new() { Quota = quota, Period = period, Cpus = cpus } }).Vcpus);

    [Theory]
    [InlineData(null, null, null, null, 4)]
    [InlineData(null, null, "0-1", null, 2)]
    [InlineData(null, 6, "0-1", null, 6)]
    [InlineData(3, 1, null, null, 3)]
    [InlineData(null, null, null, "/boot/vmlinuz", 1)]
    public void MoreVcpusMayComeLater(int? booted, int? most, string? cpus, string? kernel, int expected) => Assert.Equal(
        expected,
        VmShape.Resolve(
            new Spec { Linux = new() { Resources = new() { Cpu = new() { Cpus = cpus } } } },
            new VmOptions { Vcpus = booted, MaxVcpus = most, Kernel = kernel },
            HostMemory,
            HostCpus).MaxVcpus);

    [Fact]
    public void QuotasAddUpToWholeVcpus()
    {
        Assert.Equal((0, 0, 1, 2), (Whole(null, null), Whole(-1, 100_000), Whole(1, 100_000), Whole(100_001, null)));
        Assert.Equal(1 << 16, Whole(long.MaxValue, 1));
        Assert.Equal(0L, VmCpus.Need(null));
        Assert.Equal(2, VmCpus.Whole(VmCpus.Need(new CpuResources { Quota = 50_000 }) + VmCpus.Need(new CpuResources { Quota = 60_000 })));

        static int Whole(long? quota, ulong? period) => VmCpus.Whole(VmCpus.Need(new CpuResources { Quota = quota, Period = period }));
    }

    [Fact]
    public void FlagsComeBeforeAnnotationsBeforeLimits()
    {
        Spec spec = new()
        {
            Annotations = new() { ["dev.microvm.memory"] = "200", ["dev.microvm.vcpus"] = "3", ["dev.microvm.kernel-args"] = "a=1", ["dev.microvm.cpu-template"] = "x86-64-v2" },
            Linux = new() { Resources = new() { Memory = new() { Limit = 1L << 30 }, Cpu = new() { Cpus = "1,3" } } },
        };
        VmShape annotated = VmShape.Resolve(spec, new VmOptions { AllowedAnnotations = "*" }, HostMemory, HostCpus);
        Assert.Equal((200, 3, "a=1", "x86-64-v2"), (annotated.MemoryMiB, annotated.Vcpus, annotated.KernelArguments, annotated.CpuTemplate));
        Assert.Equal([1, 3], annotated.HostCpus);
        VmShape flagged = VmShape.Resolve(spec, new VmOptions { AllowedAnnotations = "*", MemoryMiB = 64, Vcpus = 2, KernelArguments = "b=2", CpuTemplate = "host" }, HostMemory, HostCpus);
        Assert.Equal((64, 2, "a=1 b=2", "host"), (flagged.MemoryMiB, flagged.Vcpus, flagged.KernelArguments, flagged.CpuTemplate));
    }

    [Fact]
    public void ImpossibleSizesAreNamed()
    {
        Assert.Contains("8 MiB", Refused(new VmOptions { MemoryMiB = 8 }, null), StringComparison.Ordinal);
        Assert.Contains("the host has 4096 MiB", Refused(new VmOptions { MemoryMiB = 5000 }, null), StringComparison.Ordinal);
        Assert.Contains("33 vCPUs", Refused(new VmOptions { Vcpus = 33 }, null), StringComparison.Ordinal);
        Assert.Contains("max-vcpus: 33 vCPUs", Refused(new VmOptions { MaxVcpus = 33 }, null), StringComparison.Ordinal);
        Assert.Contains("0 vCPUs", Refused(new VmOptions { Vcpus = 0 }, null), StringComparison.Ordinal);
        Assert.Contains("host, x86-64-v2, x86-64-v3, x86-64-v4", Refused(new VmOptions { CpuTemplate = "X86-64-V2" }, null), StringComparison.Ordinal);
        Assert.Contains("\"lots\"", Refused(new VmOptions { AllowedAnnotations = "dev.microvm.vcpus, dev.microvm.memory" }, "lots"), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("dev.microvm.memory", null)]
    [InlineData("dev.microvm.vcpus", "dev.microvm.memory")]
    [InlineData("dev.microvm.kernel-args", "dev.microvm.kernel-argsx,dev.microvm")]
    [InlineData("dev.microvm.cpu-template", "")]
    public void AnnotationsWorkOnlyWhereTheyAreAllowed(string name, string? allowed)
    {
        Assert.Contains(name, VmAnnotations.All);
        Spec spec = new() { Annotations = new() { [name] = "1", ["dev.microvm.other"] = "1" } };
        string message = Assert.Throws<SpecException>(() => VmShape.Resolve(spec, new VmOptions { AllowedAnnotations = allowed }, HostMemory, HostCpus)).Message;
        Assert.Contains(name, message, StringComparison.Ordinal);
        Assert.Contains("--allow-annotations", message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(null, false)]
    [InlineData("false", false)]
    [InlineData("true", true)]
    public void SetIdsAreStrippedWhereTheAnnotationSaysSo(string? value, bool expected)
    {
        // It takes rights away: it needs nobody's leave.
        Assert.DoesNotContain(VmAnnotations.StripSetId, VmAnnotations.All);
        Spec spec = new() { Annotations = value is null ? null : new() { ["dev.microvm.strip-set-id"] = value } };
        Assert.Equal(expected, VmShape.Resolve(spec, new VmOptions(), HostMemory, HostCpus).StripSetId);
    }

    [Theory]
    [InlineData("yes")]
    [InlineData("")]
    [InlineData("TRUE")]
    public void AnotherValueForSetIdsIsRefused(string value)
    {
        Spec spec = new() { Annotations = new() { ["dev.microvm.strip-set-id"] = value } };
        string message = Assert.Throws<SandboxException>(() => VmShape.Resolve(spec, new VmOptions(), HostMemory, HostCpus)).Message;
        Assert.Equal($"annotation dev.microvm.strip-set-id must be true or false, it is \"{value}\"", message);
    }

    [Fact]
    public void TheHostsConfigurationIsForContainersWithoutLimits()
    {
        VmOptions options = new() { DefaultMemoryMiB = 700, DefaultVcpus = 3 };
        Assert.Equal((700, 3), Size(new Spec()));
        Assert.Equal((264, 2), Size(new Spec { Linux = new() { Resources = new() { Memory = new() { Limit = 200L << 20 }, Cpu = new() { Quota = 150_000 } } } }));

        (int Memory, int Vcpus) Size(Spec spec)
        {
            VmShape shape = VmShape.Resolve(spec, options, HostMemory, HostCpus);
            return (shape.MemoryMiB, shape.Vcpus);
        }
    }

    [Fact]
    public void AFirstContainerOfAPodIsSizedForThePod()
    {
        SortedDictionary<string, string> pod = new()
        {
            ["io.kubernetes.cri.container-type"] = "sandbox",
            ["io.kubernetes.cri.sandbox-memory"] = $"{400L << 20}",
            ["io.kubernetes.cri.sandbox-cpu-quota"] = "250000",
            ["io.kubernetes.cri.sandbox-cpu-period"] = "100000",
        };
        Spec spec = new() { Annotations = pod, Linux = new() { Resources = new() { Memory = new() { Limit = 100L << 20 } } } };
        VmShape shape = VmShape.Resolve(spec, new VmOptions(), HostMemory, HostCpus);
        Assert.Equal((464, 3), (shape.MemoryMiB, shape.Vcpus));
        pod["io.kubernetes.cri.container-type"] = "container";
        Assert.Equal(164, VmShape.Resolve(spec, new VmOptions(), HostMemory, HostCpus).MemoryMiB);
        pod["io.kubernetes.cri.container-type"] = "sandbox";
        pod["io.kubernetes.cri.sandbox-memory"] = "much";
        Assert.Contains("sandbox-memory", Assert.Throws<SpecException>(() => VmShape.Resolve(spec, new VmOptions(), HostMemory, HostCpus)).Message, StringComparison.Ordinal);
    }

    private static VmShape Resolve(Resources resources) =>
        VmShape.Resolve(new Spec { Linux = new() { Resources = resources } }, new VmOptions(), HostMemory, HostCpus);

    private static string Refused(VmOptions options, string? memoryAnnotation)
    {
        Spec spec = new() { Annotations = memoryAnnotation is null ? null : new() { ["dev.microvm.memory"] = memoryAnnotation } };
        return Assert.Throws<SandboxException>(() => VmShape.Resolve(spec, options, HostMemory, HostCpus)).Message;
    }
}
