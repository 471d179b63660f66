using MicroVm.VmmControl;
using MicroVm.VmmControl.Writing;

namespace MicroVm.StartBench;

/// <summary>One of the two monitors that are compared: how it is started for a VM of the same shape.</summary>
internal sealed record Peer(string Name, Func<VmShape, string, string[]> Command)
{
    /// <summary>QEMU's smallest machine, with nothing that this kernel does not use.</summary>
    public static Peer Qemu { get; } = new(
        "qemu-microvm",
        (shape, console) =>
        [
            "qemu-system-x86_64", "-M", "microvm,accel=kvm,isa-serial=on,pic=off,pit=off,rtc=off,acpi=off",
            "-cpu", "host,-arch-capabilities", "-m", $"{shape.MemoryMiB}", "-nodefaults", "-no-user-config", "-display", "none",
            "-serial", $"file:{console}", "-no-reboot", "-kernel", shape.Kernel, "-append", shape.CommandLine,
            "-drive", $"id=root,file={shape.Image},format=raw,if=none,readonly=on", "-device", "virtio-blk-device,drive=root",
        ]);

    public static Peer MicroVmm(string binary, string scratch) => new(
        "microvm-vmm",
        (shape, console) =>
        {
            string config = Path.Combine(scratch, "vmm.json");
            File.WriteAllBytes(config, ConfigWriter.Write(
                new VmmConfig
                {
                    Kernel = FileReference.FromPath(shape.Kernel),
                    PvmKernel = FileReference.FromPath(shape.Kernel),
                    Block = shape.AsShipped ? [] : [new BlockConfig { File = FileReference.FromPath(shape.Image), ReadOnly = true }],
                    Pmem = shape.AsShipped ? [FileReference.FromPath(shape.Image)] : [],
                    CommandLine = shape.CommandLine,
                    MemoryMiB = shape.MemoryMiB,
                    Tables = MachineTables.MpTable,
                    Serial = FileReference.FromPath(console),
                    Entropy = shape.AsShipped,
                    Vsock = shape.AsShipped ? new VsockConfig { SocketPath = Path.Combine(scratch, "vsock") } : null,
                }));
            File.Delete(Path.Combine(scratch, "vsock"));
            return [binary, "--config", config];
        });
}

/// <summary>
/// The VM that both monitors are to start: the agent's image is its disk. As shipped, for ours alone: with the image on
/// virtio-pmem, and with the devices of a container's VM.
/// </summary>
internal sealed record VmShape(string Kernel, string Image, string CommandLine, int MemoryMiB, bool AsShipped = false);
