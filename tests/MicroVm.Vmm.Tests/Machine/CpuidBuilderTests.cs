using MicroVm.Kvm.Native;
using MicroVm.Vmm.Machine;
using MicroVm.Vmm.Machine.Cpu;

namespace MicroVm.Vmm.Tests.Machine;

public sealed class CpuidBuilderTests
{
    private static readonly kvm_cpuid_entry2[] Supported =
    [
        new() { function = 0, eax = 0xd },
        new() { function = 1, ebx = 0x0700_0800, ecx = 0x21 },
        new() { function = 4, index = 0, flags = 1, eax = 0x121 },
        new() { function = 4, index = 3, flags = 1, eax = 0x163 },
        new() { function = 6 },
        new() { function = 0xa, eax = 0x0730_0402 },
        new() { function = 0xb, index = 0, flags = 1, edx = 77 },
        new() { function = 0x4000_0000, eax = 0x4000_0001, ebx = 0x4b4d_564b },
        new() { function = 0x8000_0001, ecx = 0x25 },
        new() { function = 0x8000_0008, eax = 0x3030 },
        new() { function = 0x8000_000a, eax = 1, ebx = 16, edx = 1 },
    ];

    [Theory]
    [InlineData(1, 0u)]
    [InlineData(3, 2u)]
    [InlineData(32, 5u)]
    public void Each_vCPU_reads_its_own_place_in_one_package(int vcpus, uint bits)
    {
        CpuidBuilder builder = new(Supported, vcpus, 2_500_000, tscDeadline: true, CpuTemplate.Host);
        for (uint id = 0; id < vcpus; id++)
        {
            kvm_cpuid_entry2[] leaves = builder.For((int)id);
            Assert.Equal(id, Leaf(leaves, 1).ebx >> 24);
            Assert.Equal(1u << (int)bits, (Leaf(leaves, 1).ebx >> 16) & 0xff);
            Assert.Equal(vcpus > 1, (Leaf(leaves, 1).edx & (1u << 28)) != 0);
            Assert.Equal((0u, 1u, 0x100u, id), Registers(Leaf(leaves, 0xb)));
            Assert.Equal((bits, (uint)vcpus, 0x201u, id), Registers(Leaf(leaves, 0xb, 1)));
            Assert.Equal(0u, (Leaf(leaves, 4).eax >> 14) & 0xfff);
            Assert.Equal((1u << (int)bits) - 1, (Leaf(leaves, 4, 3).eax >> 14) & 0xfff);
            Assert.Equal((uint)vcpus - 1, Leaf(leaves, 0x8000_0008).ecx & 0xff);
        }
    }

    [Theory]
    [InlineData(0x2e7u, false)]
    [InlineData(0x202e7u, false)]
    [InlineData(0x602e7u, true)]
    public void AMX_is_shown_only_with_its_state(uint xcr0, bool shown)
    {
        kvm_cpuid_entry2[] supported =
        [
            .. Supported,
            new() { function = 7, index = 0, flags = 1, ebx = 1, edx = 0x0340_0001 },
            new() { function = 7, index = 1, flags = 1, eax = 0x20_0010, edx = 0x110 },
            new() { function = 0xd, index = 0, flags = 1, eax = xcr0 },
            new() { function = 0xd, index = 1, flags = 1, eax = 0x1f },
            new() { function = 0xd, index = 18, flags = 1, eax = 0x2000, ebx = 0xb00, ecx = 6 },
            new() { function = 0x1d, index = 0, flags = 1, eax = 1 },
            new() { function = 0x1e, index = 0, flags = 1, ebx = 0x4010 },
        ];
        kvm_cpuid_entry2[] leaves = new CpuidBuilder(supported, 1, 2_500_000, tscDeadline: true, CpuTemplate.Host).For(0);
        Assert.Equal(shown ? 0x0340_0001u : 1, Leaf(leaves, 7).edx);
        Assert.Equal(shown ? 0x20_0010u : 0x10, Leaf(leaves, 7, 1).eax);
        Assert.Equal(shown ? 0x110u : 0x10, Leaf(leaves, 7, 1).edx);
        Assert.Equal(shown ? 0x602e7u : 0x2e7, Leaf(leaves, 0xd).eax);
        Assert.Equal(shown ? 0x1fu : 0xf, Leaf(leaves, 0xd, 1).eax);
        Assert.Equal(shown ? 0x2000u : 0, Leaf(leaves, 0xd, 18).eax);
        Assert.Equal(shown ? 1u : 0, Leaf(leaves, 0x1d).eax);
        Assert.Equal(shown ? 0x4010u : 0, Leaf(leaves, 0x1e).ebx);
    }

    [Fact]
    public void Frequencies_need_no_calibration()
    {
        kvm_cpuid_entry2[] leaves = new CpuidBuilder(Supported, 1, 2_596_100, tscDeadline: true, CpuTemplate.Host).For(0);
        kvm_cpuid_entry2 ratio = Leaf(leaves, 0x15);
        Assert.Equal(2_596_100_000ul, (ulong)ratio.ecx * ratio.ebx / ratio.eax);
        Assert.True(Leaf(leaves, 0).eax >= 0x16);
        Assert.Equal(2596u, Leaf(leaves, 0x16).eax);
        Assert.Equal(2_596_100u, Leaf(leaves, 0x4000_0010).eax);
        Assert.Equal(0x4000_0010u, Leaf(leaves, 0x4000_0000).eax);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void The_hypervisor_bit_is_set_and_the_deadline_timer_is_as_the_host_has_it(bool deadline)
    {
        kvm_cpuid_entry2[] leaves = new CpuidBuilder(Supported, 1, 0, deadline, CpuTemplate.Host).For(0);
        Assert.Equal(deadline, (Leaf(leaves, 1).ecx & (1u << 24)) != 0);
        Assert.NotEqual(0u, Leaf(leaves, 1).ecx & (1u << 31));
        Assert.NotEqual(0u, Leaf(leaves, 6).eax & 4);
        Assert.DoesNotContain(leaves, l => l.function is 0xa or 0x15 or 0x4000_0010);
    }

    [Fact]
    public void Nested_virtualization_is_hidden()
    {
        kvm_cpuid_entry2[] leaves = new CpuidBuilder(Supported, 1, 0, tscDeadline: true, CpuTemplate.Host).For(0);
        Assert.Equal(1u, Leaf(leaves, 1).ecx & 0x21);
        Assert.Equal(0x21u, Leaf(leaves, 0x8000_0001).ecx);
        Assert.DoesNotContain(leaves, l => l.function == 0x8000_000a);
    }

    private static (uint, uint, uint, uint) Registers(kvm_cpuid_entry2 e) => (e.eax, e.ebx, e.ecx, e.edx);

    private static kvm_cpuid_entry2 Leaf(kvm_cpuid_entry2[] leaves, uint function, uint index = 0) =>
        leaves.Single(l => l.function == function && l.index == index);
}
