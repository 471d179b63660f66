using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Memory;
using MicroVm.Tests.Shared;
using MicroVm.Tests.Shared.Fuzz;
using MicroVm.Tests.Shared.Virtio;
using MicroVm.Virtio;
using MicroVm.VirtioFs;
using MicroVm.VirtioFs.Exports;
using MicroVm.Vmm.Devices.Balloon;
using MicroVm.Vmm.Devices.Block;
using MicroVm.Vmm.Devices.Console;
using MicroVm.Vmm.Devices.Entropy;
using MicroVm.Vmm.Devices.Mem;
using MicroVm.Vmm.Devices.Net;
using MicroVm.Vmm.Devices.Vsock;
using MicroVm.Vmm.Tests.Devices;

namespace MicroVm.Vmm.Tests.Fuzz;

/// <summary>Every device behind its transport, driven by a <see cref="HostileDriver"/>: it throws nothing and grows by nothing.</summary>
public sealed class DeviceFuzz
{
    [Fact]
    public void Rng() => Fuzz("rng", _ => new EntropyDevice());

    [Fact]
    public void Balloon() => Fuzz("balloon", _ => new BalloonDevice());

    [Fact]
    public void Mem()
    {
        using GuestMemory memory = GuestMemory.Create(1 << 20);
        _ = MemTests.Reserved(memory);
        Fuzz("mem", _ => new MemDevice(memory, _ => { }));
    }

    [Fact]
    public void Console() => Fuzz("console", _ => new ConsoleDevice(Open("/dev/zero", Libc.O_RDONLY), Open("/dev/null", Libc.O_WRONLY)));

    [Fact]
    public void Block()
    {
        string image = Path.GetTempFileName();
        File.WriteAllBytes(image, new byte[1 << 16]);
        Fuzz("block", _ => new BlockDevice("blk0", Open(image, Libc.O_RDWR), readOnly: false, ""));
        Assert.Equal(1 << 16, new FileInfo(image).Length);
        File.Delete(image);
    }

    [Fact]
    public void Vsock()
    {
        string directory = Directory.CreateTempSubdirectory("vsock-fuzz-").FullName;
        Fuzz("vsock", loop => new VsockDevice(42, Path.Combine(directory, "v.sock"), loop));
        Directory.Delete(directory, recursive: true);
    }

    [Fact]
    public void Fs()
    {
        using TempTree tree = new();
        string secret = Path.Combine(tree.Base, "secret");
        File.WriteAllText(secret, "secret");
        tree.Write("f", "content");
        File.CreateSymbolicLink(tree.At("l"), "../secret");
        Fuzz("fs", _ => new VirtioFsDevice("fuzz", [new VirtioFsExport("tree", Open(tree.Share, Libc.O_PATH | Libc.O_DIRECTORY), ReadOnly: false)]));
        Assert.Equal("secret", File.ReadAllText(secret));
        Assert.Equal(["secret", "share"], Directory.EnumerateFileSystemEntries(tree.Base).Select(p => Path.GetFileName(p)!).Order());
    }

    [SkippableFact]
    public void Net()
    {
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);
        using TapNamespace tap = TapNamespace.Create(queues: 2);
        ulong features;
        using (NetDevice device = MakeNet(tap))
        {
            features = device.DeviceFeatures;
        }

        byte[] frame = new byte[1514];
        Fuzzing.Run("net", random =>
        {
            for (int i = random.Next(8); i > 0; i--)
            {
                random.NextBytes(frame);
                frame.AsSpan(0, MacAddress.Length).Clear();
                _ = tap.Send(frame.AsSpan(0, random.Next(14, frame.Length)), wait: false);
            }

            using (HostileDriver driver = new(random, _ => MakeNet(tap), features))
            {
                driver.Attack();
            }

            while (tap.TryReceive() is { } sent)
            {
                Assert.Equal(new byte[MacAddress.Length], sent[6..12]);
            }
        });
    }

    private static NetDevice MakeNet(TapNamespace tap)
    {
        // The address is that of the driver's empty memory, so that some of its frames come from it.
        NetDevice device = new("net0", 2);
        device.Attach([.. tap.Taps.Select(t => t.Duplicate())], new NetInterface(default, 1500, default, default));
        return device;
    }

    private static void Fuzz(string target, Func<EventLoop, VirtioDevice> make) => Fuzzing.Run(target, random =>
    {
        using HostileDriver driver = new(random, make);
        driver.Attack();
    });

    private static SafeFd Open(string path, int flags) =>
        SafeFd.From(Libc.openat(Libc.AT_FDCWD, path, flags | Libc.O_CLOEXEC, 0), "open", path);
}
