using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs;
using MicroVm.VirtioFs.Dax;
using MicroVm.VirtioFs.Exports;
using MicroVm.Vmm.Devices.Balloon;
using MicroVm.Vmm.Devices.Block;
using MicroVm.Vmm.Devices.Console;
using MicroVm.Vmm.Devices.Entropy;
using MicroVm.Vmm.Devices.Mem;
using MicroVm.Vmm.Devices.Pmem;
using MicroVm.Vmm.Devices.Vsock;
using MicroVm.VmmControl;

namespace MicroVm.Vmm.Machine;

/// <summary>
/// Makes the configured virtio devices, in an order that never changes: rng, console, vsock, fs..., block..., pmem...,
/// net..., balloon, mem. A guest numbers disks and network interfaces by it.
/// </summary>
internal static class DeviceFactory
{
    /// <summary>Adds the devices to <paramref name="machine"/>, which owns them then.</summary>
    /// <exception cref="ConfigException">A file cannot be opened, or a name is not possible.</exception>
    public static void AddDevices(VirtualMachine machine, VmmConfig config)
    {
        if (config.Entropy)
        {
            machine.AddDevice(new EntropyDevice());
        }

        if (config.Console is { } console)
        {
            SafeFd? input = console.Input is { } i ? FileOpener.Open(i, Libc.O_RDONLY, "console.input") : null;
            SafeFd? output = console.Output is { } o
                ? FileOpener.Open(o, Libc.O_WRONLY | Libc.O_APPEND | Libc.O_CREAT, "console.output")
                : null;
            machine.AddDevice(new ConsoleDevice(input, output));
        }

        if (config.Vsock is { } vsock)
        {
            SafeFd? listener = vsock.Listener is { } l ? FileOpener.Open(l, 0, "vsock.listener") : null;
            machine.AddDevice(new VsockDevice(vsock.Cid, vsock.SocketPath, machine.Loop, listener));
        }

        for (int i = 0; i < config.Fs.Count; i++)
        {
            AddFs(machine, config.Fs[i], i);
        }

        for (int i = 0; i < config.Block.Count; i++)
        {
            AddBlock(machine, config.Block[i], i);
        }

        for (int i = 0; i < config.Pmem.Count; i++)
        {
            AddPmem(machine, config.Pmem[i], i);
        }

        for (int i = 0; i < config.Net.Count; i++)
        {
            NetFactory.Add(machine, config.Net[i], i);
        }

        if (config.Balloon)
        {
            machine.AddDevice(new BalloonDevice());
        }

        if (config.GrowthMiB > 0)
        {
            AddMem(machine, (ulong)config.GrowthMiB << 20);
        }
    }

    private static void AddMem(VirtualMachine machine, ulong length)
    {
        try
        {
            machine.Memory.Reserve(machine.ReserveMemory(length, MemDevice.Alignment), length);
        }
        catch (LinuxException e)
        {
            throw new ConfigException($"growthMiB: {e.Message}");
        }

        machine.AddDevice(new MemDevice(machine.Memory, piece => machine.AddMemory(piece)));
    }

    private static void AddFs(VirtualMachine machine, FsConfig fs, int index)
    {
        List<VirtioFsExport> exports = [];
        foreach (FsExport export in fs.Exports)
        {
            SafeFd fd = FileOpener.Open(export.File, Libc.O_PATH, $"fs[{index}] export {export.Name}");
            exports.Add(new VirtioFsExport(export.Name, fd, export.ReadOnly, export.Cache, export.HidesMounts, export.SharesSockets));
        }

        SafeFd? sockets = fs.Sockets is null ? null : FileOpener.Open(fs.Sockets, Libc.O_RDWR, $"fs[{index}] sockets");
        try
        {
            DaxWindow? window = fs.DaxWindowMiB == 0 ? null : new((ulong)fs.DaxWindowMiB << 20);
            ulong gpa = window is null ? 0 : machine.ReserveMemory(window.Length, DaxWindow.SlotLength);
            machine.AddDevice(new VirtioFsDevice(fs.Tag, exports, $"fs{index}", fs.StripSetId, window, gpa, sockets));
            if (window is null)
            {
                return;
            }

            machine.AddMemory(gpa, window.Length, window.Address);
            machine.Memory.AddWindow(gpa, window.Length, window.Address);
            machine.AddWindow(window);
        }
        catch (ArgumentException e)
        {
            throw new ConfigException($"fs[{index}]: {e.Message}");
        }
    }

    private static void AddBlock(VirtualMachine machine, BlockConfig block, int index)
    {
        string setting = $"block[{index}]";
        SafeFd file = FileOpener.Open(block.File, block.ReadOnly ? Libc.O_RDONLY : Libc.O_RDWR, setting);
        try
        {
            machine.AddDevice(new BlockDevice($"blk{index}", file, block.ReadOnly, block.Id));
        }
        catch (Exception e) when (e is ArgumentException or IOException)
        {
            throw new ConfigException($"{setting}: {e.Message}");
        }
    }
    private static void AddPmem(VirtualMachine machine, FileReference file, int index)
    {
        string setting = $"pmem[{index}]";
        using SafeFd opened = FileOpener.Open(file, Libc.O_RDONLY, setting);
        try
        {
            FileImage image = new(opened);
            PmemDevice device = new($"pmem{index}", image, machine.ReserveMemory(image.Length, FileImage.Alignment));
            machine.AddDevice(device);
            machine.AddMemory(device.Gpa, device.Length, image.Address, readOnly: true);
        }
        catch (Exception e) when (e is ArgumentException or IOException)
        {
            throw new ConfigException($"{FileOpener.NameOf(file, setting)}: {e.Message}");
        }
    }
}
