using MicroVm.Kvm;
using MicroVm.Kvm.Native;
using MicroVm.Vmm.Machine;
using MicroVm.Vmm.Machine.Cpu;
using MicroVm.VmmControl;

namespace MicroVm.Vmm.Tests.Machine.Cpu;

public sealed class CpuTemplateTests
{
    private const uint All = uint.MaxValue;

    // A processor of the future: every bit of every leaf, known or not; state components at 576, each of 64 bytes.
    private static readonly kvm_cpuid_entry2[] Everything =
    [
        .. ((uint[])[0, 1, 2, 3, 5, 6, 0x12, 0x19, 0x21, 0x24, 0x4000_0000, 0x4000_0001, 0x8000_0000, 0x8000_0001, 0x8000_0002, 0x8000_0007,
            0x8000_0008, 0x8000_001f, 0x8000_0021, 0x8000_0022, 0xc000_0001]).Select(f => Leaf(f, 0, All)),
        .. Enumerable.Range(0, 4).Select(i => Leaf(7, (uint)i, All)),
        Leaf(0xd, 0, All),
        Leaf(0xd, 1, All),
        .. Enumerable.Range(2, 18).Select(i => new kvm_cpuid_entry2 { function = 0xd, index = (uint)i, flags = 1, eax = 64, ebx = 576u + (64 * ((uint)i - 2)) }),
        Leaf(0x1d, 1, All),
    ];

    [Fact]
    public void Every_name_has_a_template_and_others_have_none()
    {
        Assert.All(CpuTemplateNames.All, name => Assert.Equal(name, CpuTemplate.Find(name)!.Name));
        Assert.Null(CpuTemplate.Find("x86-64-v5"));
        Assert.Null(CpuTemplate.Find(""));
        Assert.Same(CpuTemplate.Host, CpuTemplate.Find("host"));
    }

    [Fact]
    public void Host_shows_all()
    {
        kvm_cpuid_entry2[] leaves = [.. Everything];
        CpuTemplate.Host.Apply(leaves);
        Assert.Equal(Everything, leaves);
    }

    // Leaf 1 ECX, 7 EBX, 0x8000_0001 ECX, XCR0.
    [Theory]
    [InlineData("x86-64-v2", 0x0098_2201u | Kernel1Ecx, Kernel7Ebx, 0x0040_0003u, 0u)]
    [InlineData("x86-64-v3", 0x34d8_3201u | Kernel1Ecx, 0x0000_0128u | Kernel7Ebx, 0x0040_0023u, 7u)]
    [InlineData("x86-64-v4", 0x34d8_3201u | Kernel1Ecx, 0xd003_0128u | Kernel7Ebx, 0x0040_0023u, 0xe7u)]
    public void A_level_shows_its_instructions_and_what_kernels_use(string name, uint ecx1, uint ebx7, uint ecxExtended, uint xcr0)
    {
        kvm_cpuid_entry2[] leaves = Applied(name, Everything);
        Assert.Equal(ecx1, Find(leaves, 1).ecx);
        Assert.Equal(ebx7, Find(leaves, 7).ebx);
        Assert.Equal(ecxExtended, Find(leaves, 0x8000_0001).ecx);
        Assert.Equal((xcr0, 0u), (Find(leaves, 0xd).eax, Find(leaves, 0xd).edx));

        // Supervisor states, XFD, and the instructions of leaf 7's further sub-leaves are in no level.
        Assert.Equal((xcr0 == 0 ? 0u : 0xf, 0u, 0u), (Find(leaves, 0xd, 1).eax, Find(leaves, 0xd, 1).ecx, Find(leaves, 0xd, 1).edx));
        Assert.Equal((0u, 0u, 0u, 0u), Registers(Find(leaves, 7, 1)));
    }

    [Theory]
    [InlineData("x86-64-v2", 0u)]
    [InlineData("x86-64-v3", 576u + 64)]
    [InlineData("x86-64-v4", 576u + (64 * 6))]
    public void The_XSAVE_area_is_as_large_as_the_states_that_are_left(string name, uint size)
    {
        kvm_cpuid_entry2[] leaves = Applied(name, Everything);
        kvm_cpuid_entry2 main = Find(leaves, 0xd);
        Assert.Equal((size, size), (main.ebx, main.ecx));
        for (uint i = 2; i < 20; i++)
        {
            Assert.Equal((main.eax & (1u << (int)i)) != 0, Find(leaves, 0xd, i).eax != 0);
        }
    }

    [Theory]
    [InlineData("x86-64-v2")]
    [InlineData("x86-64-v4")]
    public void Unknown_leaves_are_hidden_and_the_machines_own_pass(string name)
    {
        kvm_cpuid_entry2[] leaves = Applied(name, Everything);
        foreach (uint hidden in (uint[])[3, 0x12, 0x19, 0x21, 0x24, 0x8000_001f, 0x8000_0022, 0xc000_0001])
        {
            Assert.Equal((0u, 0u, 0u, 0u), Registers(Find(leaves, hidden)));
        }

        Assert.Equal((0u, 0u, 0u, 0u), Registers(Find(leaves, 0x1d, 1)));
        Assert.Equal((0u, 0u, 0u, 0u), Registers(Find(leaves, 7, 3)));
        foreach (uint kept in (uint[])[0, 2, 5, 6, 0x4000_0000, 0x4000_0001, 0x8000_0000, 0x8000_0002])
        {
            Assert.Equal((All, All, All, All), Registers(Find(leaves, kept)));
        }
    }

    [Fact]
    public void What_the_host_lacks_is_named()
    {
        kvm_cpuid_entry2[] leaves = [.. Everything];
        foreach (ref kvm_cpuid_entry2 e in leaves.AsSpan())
        {
            if (e is { function: 7, index: 0 })
            {
                e.ebx &= ~(1u << 8);
            }
            else if (e is { function: 0xd, index: 0 })
            {
                e.eax = 3;
            }
        }

        CpuTemplate.Find("x86-64-v2")!.Require(leaves);
        CpuTemplate.Host.Require([]);
        ConfigException refused = Assert.Throws<ConfigException>(() => CpuTemplate.Find("x86-64-v3")!.Require(leaves));
        Assert.Equal("cpuTemplate: x86-64-v3 is not possible on this host, which lacks bmi2, the AVX state", refused.Message);
    }

    [Fact]
    public void What_the_host_lacks_is_not_made_up()
    {
        kvm_cpuid_entry2[] leaves = Applied("x86-64-v2", Everything.Select(e => e with { eax = 0, ebx = 0, ecx = 0, edx = 0 }));
        Assert.All(leaves, l => Assert.Equal((0u, 0u, 0u, 0u), Registers(l)));
    }

    [Fact]
    public void Vcpus_keep_their_places_under_a_template()
    {
        CpuidBuilder builder = new(Everything, 4, 2_000_000, tscDeadline: true, CpuTemplate.Find("x86-64-v3")!);
        for (uint id = 0; id < 4; id++)
        {
            kvm_cpuid_entry2[] leaves = builder.For((int)id);
            Assert.Equal((id, 1u << 31), (Find(leaves, 1).ebx >> 24, Find(leaves, 1).ecx & (1u << 31)));
            Assert.Equal(id, Find(leaves, 0xb).edx);
            Assert.Equal(2_000_000u, Find(leaves, 0x4000_0010).eax);
        }
    }

    [SkippableFact]
    public void This_hosts_KVM_takes_what_is_left()
    {
        Skip.IfNot(File.Exists("/dev/kvm"), "no /dev/kvm on this machine");
        using KvmSystem kvm = KvmSystem.Open();
        kvm_cpuid_entry2[] supported = kvm.GetSupportedCpuid();
        foreach (string name in CpuTemplateNames.All)
        {
            CpuTemplate template = CpuTemplate.Find(name)!;
            using KvmVm vm = kvm.CreateVm();
            using KvmVcpu vcpu = vm.CreateVcpu(0);
            try
            {
                template.Require(supported);
            }
            catch (ConfigException)
            {
                continue;
            }

            vcpu.SetCpuid2(new CpuidBuilder(supported, 1, 0, tscDeadline: true, template).For(0));
        }
    }

    // pcid, x2apic, tsc_deadline_timer, hypervisor.
    private const uint Kernel1Ecx = (1u << 17) | (1u << 21) | (1u << 24) | (1u << 31);

    // fsgsbase, tsc_adjust, fdp_excptn_only, smep, erms, invpcid, zero_fcs_fds, smap.
    private const uint Kernel7Ebx = 0x0010_26c3;

    private static kvm_cpuid_entry2[] Applied(string name, IEnumerable<kvm_cpuid_entry2> supported)
    {
        kvm_cpuid_entry2[] leaves = [.. supported];
        CpuTemplate.Find(name)!.Apply(leaves);
        return leaves;
    }

    private static kvm_cpuid_entry2 Leaf(uint function, uint index, uint value) =>
        new() { function = function, index = index, flags = 1, eax = value, ebx = value, ecx = value, edx = value };

    private static kvm_cpuid_entry2 Find(kvm_cpuid_entry2[] leaves, uint function, uint index = 0) =>
        leaves.Single(l => l.function == function && l.index == index);

    private static (uint, uint, uint, uint) Registers(kvm_cpuid_entry2 e) => (e.eax, e.ebx, e.ecx, e.edx);
}
