using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Boot;
using MicroVm.Vmm.Machine;
using MicroVm.Vmm.Tests.Boot;
using MicroVm.VmmControl;

namespace MicroVm.Vmm.Tests.Machine;

public sealed class VirtualMachineTests
{
    public static TheoryData<byte[], VmmExitCode> Endings => new()
    {
        { TestMachines.PowerOff, VmmExitCode.PoweredOff },
        { [0xb0, 0xfe, 0xe6, 0x64, 0xf4], VmmExitCode.Reset },
        { [0x66, 0xba, 0x02, 0x06, 0xb0, 0x01, 0xee, 0xf4], VmmExitCode.Reset },
        { [0x0f, 0x0b], VmmExitCode.TripleFault },
    };

    [SkippableTheory]
    [MemberData(nameof(Endings))]
    public void The_guests_end_is_told(byte[] code, VmmExitCode expected)
    {
        TestMachines.RequireKvm();
        Assert.Equal(expected, TestMachines.Run(TestMachines.Config(ElfBuilder.Kernel(code))));
    }

    [SkippableFact]
    public void A_Linux_kernel_gets_its_zero_page_in_RSI()
    {
        TestMachines.RequireKvm();
        byte[] code =
        [
            0x81, 0xbe, 0x02, 0x02, 0, 0, 0x48, 0x64, 0x72, 0x53, // cmp dword [rsi+0x202], "HdrS"
            0x75, 0x08, // jne +8
            .. TestMachines.PowerOff,
            0xb0, 0xfe, 0xe6, 0x64, 0xf4,
        ];
        Assert.Equal(VmmExitCode.PoweredOff, TestMachines.Run(TestMachines.Config(ElfBuilder.Kernel(code))));
    }

    [SkippableFact]
    public void A_bzImage_is_entered_at_its_64_bit_entry()
    {
        TestMachines.RequireKvm();
        byte[] code = [0x81, 0xbe, 0x02, 0x02, 0, 0, 0x48, 0x64, 0x72, 0x53, 0x75, 0x08, .. TestMachines.PowerOff, 0x0f, 0x0b];
        Assert.Equal(VmmExitCode.PoweredOff, TestMachines.Run(TestMachines.Config(BzImageLoaderTests.Image(code))));
    }

    /// <summary>32-bit code without paging sees start info in EBX and a virtio-mmio window where the tables say it is.</summary>
    [SkippableFact]
    public void A_PVH_kernel_gets_its_start_info_in_EBX()
    {
        TestMachines.RequireKvm();
        byte[] code =
        [
            0x81, 0x3b, 0x78, 0xc5, 0x6e, 0x33, // cmp dword [ebx], 0x336ec578
            0x75, 0x14, // jne +20
            0xa1, 0x00, 0x00, 0x00, 0xd0, // mov eax, [0xd0000000]
            0x3d, 0x76, 0x69, 0x72, 0x74, // cmp eax, "virt"
            0x75, 0x08, // jne +8
            .. TestMachines.PowerOff,
            0xb0, 0xfe, 0xe6, 0x64, 0xf4,
        ];
        byte[] kernel = ElfBuilder.Kernel(code, entry: ulong.MaxValue, pvhEntry: (uint)ElfBuilder.LoadAddress);
        VmmConfig config = TestMachines.Config(kernel);
        config.Entropy = true;
        Assert.Equal(VmmExitCode.PoweredOff, TestMachines.Run(config, m => Assert.Equal(0, Counter(m, "mmio.unknown.reads"))));
    }

    [SkippableTheory]
    [InlineData(MachineTables.MpTable, true)]
    [InlineData(MachineTables.Acpi, false)]
    public void A_kernel_without_ACPI_is_told_how_to_power_off(MachineTables tables, bool told)
    {
        TestMachines.RequireKvm();
        VmmConfig config = TestMachines.Config(ElfBuilder.Kernel(TestMachines.PowerOff));
        config.Tables = tables;
        Assert.Equal(VmmExitCode.PoweredOff, TestMachines.Run(
            config, m => Assert.Equal(told, m.CommandLine.Contains("microvm.power_off_port=0x600,0x34", StringComparison.Ordinal))));
    }

    /// <summary>The guest maps 2 MiB at 4 GiB, reads the image there, and writes to it in vain.</summary>
    [SkippableFact]
    public void A_pmem_image_is_read_only_memory_behind_RAM()
    {
        TestMachines.RequireKvm();
        byte[] code =
        [
            0x48, 0xc7, 0x04, 0x25, 0x20, 0xa0, 0, 0, 0x03, 0x00, 0x01, 0x00, // mov qword [0xa020], 0x10003
            0x48, 0xb8, 0x83, 0, 0, 0, 1, 0, 0, 0, // mov rax, 0x100000083
            0x48, 0x89, 0x04, 0x25, 0x00, 0x00, 0x01, 0x00, // mov [0x10000], rax
            0x48, 0xbb, 0, 0, 0, 0, 1, 0, 0, 0, // mov rbx, 0x100000000
            0x81, 0x3b, (byte)'i', (byte)'m', (byte)'a', (byte)'g', // cmp dword [rbx], "imag"
            0x75, 0x13, // jne to the reset
            0xc6, 0x03, 0x00, // mov byte [rbx], 0
            0x81, 0x3b, (byte)'i', (byte)'m', (byte)'a', (byte)'g',
            0x75, 0x08,
            .. TestMachines.PowerOff,
            0xb0, 0xfe, 0xe6, 0x64, 0xf4,
        ];
        using SafeFd image = ElfBuilder.Memfd("image"u8.ToArray());
        VmmConfig config = TestMachines.Config(ElfBuilder.Kernel(code));
        config.Pmem = [FileReference.FromFd(image.Duplicate().Release())];
        Assert.Equal(VmmExitCode.PoweredOff, TestMachines.Run(config, m => Assert.Equal(1, Counter(m, "mmio.unknown.writes"))));
        Assert.Equal("image", ReadAll(image));
    }

    [SkippableFact]
    public void Serial_output_reaches_its_file_and_unknown_ports_read_all_ones()
    {
        TestMachines.RequireKvm();
        byte[] code =
        [
            0xe4, 0x99, // in al, 0x99
            0x3c, 0xff, // cmp al, 0xff
            0x75, 0x11, // jne to the power-off
            0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
            0xb0, (byte)'o', 0xee, 0xb0, (byte)'k', 0xee, 0xb0, (byte)'\n', 0xee, 0xb0, (byte)'.', 0xee,
            .. TestMachines.PowerOff,
        ];
        using SafeFd serial = ElfBuilder.Memfd([]);
        VmmConfig config = TestMachines.Config(ElfBuilder.Kernel(code), serial.Duplicate());
        Assert.Equal(VmmExitCode.PoweredOff, TestMachines.Run(config, m =>
        {
            Assert.Equal(1, Counter(m, "pio.unknown.reads"));
            Assert.True(Counter(m, "exits.io") >= 6);
        }));
        Assert.Equal("ok\n.", ReadAll(serial));
    }

    [SkippableFact]
    public void Other_vCPUs_wait_until_they_are_started_and_end_with_the_machine()
    {
        TestMachines.RequireKvm();
        VmmConfig config = TestMachines.Config(ElfBuilder.Kernel(TestMachines.PowerOff));
        config.Vcpus = 3;
        Assert.Equal(VmmExitCode.PoweredOff, TestMachines.Run(config));
    }

    [SkippableFact]
    public void A_spinning_guest_is_paused_resumed_and_stopped()
    {
        TestMachines.RequireKvm();
        VmmConfig config = TestMachines.Config(ElfBuilder.Kernel(TestMachines.Spin));
        config.Vcpus = 2;
        using VirtualMachine machine = MachineBuilder.Build(config);
        using ManualResetEventSlim paused = new();
        VmmExitCode code = default;
        Thread thread = new(() => code = machine.Run());
        thread.Start();
        for (int i = 0; i < 3; i++)
        {
            paused.Reset();
            machine.Loop.Post(() => Assert.True(machine.Pause(paused.Set)));
            Assert.True(paused.Wait(60_000));
            machine.Loop.Post(() => Assert.True(machine.Resume()));
        }

        machine.End(VmmExitCode.Stopped);
        Assert.True(thread.Join(60_000));
        Assert.Equal(VmmExitCode.Stopped, code);
    }

    [SkippableFact]
    public void VCPUs_come_later_stand_still_and_run_on()
    {
        TestMachines.RequireKvm();
        VmmConfig config = TestMachines.Config(ElfBuilder.Kernel(TestMachines.Spin));
        config.MaxVcpus = 3;
        using VirtualMachine machine = MachineBuilder.Build(config);
        VmmExitCode code = default;
        Thread thread = new(() => code = machine.Run());
        thread.Start();
        string? Resize(int count) => OnLoop<string?>(machine, done => machine.Growth!.Resize(count, done));
        Assert.Equal((1, 3), (Counter(machine, "vcpus.running"), Counter(machine, "vcpus.possible")));
        Assert.Equal("4 vCPUs are not 1 to 3", Resize(4));
        Assert.Equal("0 vCPUs are not 1 to 3", Resize(0));
        foreach (int count in (int[])[2, 1, 3, 2, 3])
        {
            Assert.Null(Resize(count));
            Assert.Equal(count, Counter(machine, "vcpus.running"));
        }

        // A vCPU that stands still is paused with the others.
        Assert.Null(Resize(1));
        Assert.True(OnLoop<bool>(machine, done => Assert.True(machine.Pause(() => done(true)))));
        Assert.Equal("the VM is paused", Resize(2));
        Assert.True(OnLoop<bool>(machine, done => done(machine.Resume())));
        Assert.Null(Resize(2));
        machine.End(VmmExitCode.Stopped);
        Assert.True(thread.Join(60_000));
        Assert.Equal(VmmExitCode.Stopped, code);
        Assert.Equal(3, machine.Vcpus.Count);
    }

    private static T OnLoop<T>(VirtualMachine machine, Action<Action<T>> work)
    {
        TaskCompletionSource<T> answer = new(TaskCreationOptions.RunContinuationsAsynchronously);
        machine.Loop.Post(() => work(answer.SetResult));
        Assert.True(answer.Task.Wait(60_000));
        return answer.Task.Result;
    }

    [SkippableFact]
    public void Too_little_memory_is_named_with_its_cure()
    {
        TestMachines.RequireKvm();
        VmmConfig config = TestMachines.Config(ElfBuilder.Kernel(TestMachines.Spin, memorySize: 40 << 20));
        BootException e = Assert.Throws<BootException>(() => MachineBuilder.Build(config));
        Assert.Contains("32 MiB of memory do not hold; give it more", e.Message, StringComparison.Ordinal);
    }

    public static TheoryData<VmmConfig, string> WrongConfigs
    {
        get
        {
            FileReference kernel = FileReference.FromPath("/nonexistent/kernel");
            return new()
            {
                { new VmmConfig(), "kernel: is missing" },
                { new VmmConfig { Kernel = kernel, MemoryMiB = 8 }, "memoryMiB: 8" },
                { new VmmConfig { Kernel = kernel, MemoryMiB = 33, HugePages = true }, "memoryMiB: 33" },
                { new VmmConfig { Kernel = kernel, HugePages = true, Balloon = true }, "balloon: is not possible with hugePages" },
                { new VmmConfig { Kernel = kernel, GrowthMiB = 100 }, "growthMiB: 100" },
                { new VmmConfig { Kernel = kernel, GrowthMiB = -128 }, "growthMiB: -128" },
                { new VmmConfig { Kernel = kernel, GrowthMiB = 128, HugePages = true }, "growthMiB: memory is not added" },
                { new VmmConfig { Kernel = kernel, Vcpus = 0 }, "vcpus: 0" },
                { new VmmConfig { Kernel = kernel, Vcpus = 33 }, "vcpus: 33" },
                { new VmmConfig { Kernel = kernel, MaxVcpus = 33 }, "maxVcpus: 33" },
                { new VmmConfig { Kernel = kernel, MaxVcpus = -1 }, "maxVcpus: -1" },
                { new VmmConfig { Kernel = kernel, Vsock = new VsockConfig { Cid = 2, SocketPath = "x" } }, "vsock.cid: 2" },
                { new VmmConfig { Kernel = kernel, Fs = [new FsConfig { Tag = "a" }, new FsConfig { Tag = "a" }] }, "the tag \"a\"" },
                { new VmmConfig { Kernel = kernel, Block = [.. Enumerable.Repeat(new BlockConfig { File = kernel }, 20)] }, "21 virtio devices" },
            };
        }
    }

    [Theory]
    [MemberData(nameof(WrongConfigs))]
    public void Wrong_settings_are_named(VmmConfig config, string named) =>
        Assert.Contains(named, Assert.Throws<ConfigException>(() => ConfigValidator.Check(config)).Message, StringComparison.Ordinal);

    [Fact]
    public void File_references_are_checked()
    {
        Assert.Throws<ConfigException>(() => FileOpener.Open(new FileReference(), 0, "x"));
        Assert.Throws<ConfigException>(() => FileOpener.Open(new FileReference { Fd = 1, Path = "/" }, 0, "x"));
        Assert.Throws<ConfigException>(() => FileOpener.Open(FileReference.FromFd(-1), 0, "x"));
        Assert.Contains("not open", Assert.Throws<ConfigException>(() => FileOpener.Open(FileReference.FromFd(987_654), 0, "x")).Message, StringComparison.Ordinal);
        Assert.Contains("x: cannot open /no/such: No such file", Assert.Throws<ConfigException>(() => FileOpener.Open(FileReference.FromPath("/no/such"), 0, "x")).Message, StringComparison.Ordinal);
    }

    internal static long Counter(VirtualMachine machine, string name)
    {
        Dictionary<string, long> counters = [];
        machine.CollectCounters((n, v) => counters[n] = v);
        return counters[name];
    }

    private static unsafe string ReadAll(SafeFd fd)
    {
        byte[] buffer = new byte[4096];
        fixed (byte* p = buffer)
        {
            return Encoding.ASCII.GetString(buffer, 0, (int)Libc.pread(fd.Value, p, (nuint)buffer.Length, 0));
        }
    }
}
