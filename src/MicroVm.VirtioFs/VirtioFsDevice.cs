using System.Buffers.Binary;
using System.Text;
using MicroVm.Bus.Counters;
using MicroVm.Jail;
using MicroVm.Linux;
using MicroVm.Virtio;
using MicroVm.VirtioFs.Dax;
using MicroVm.VirtioFs.Descriptors;
using MicroVm.VirtioFs.Exports;
using MicroVm.VmmControl;
using MicroVm.VmmControl.Snapshots;

namespace MicroVm.VirtioFs;

/// <summary>
/// virtio-fs (virtio 1.2, 5.11): a FUSE server over two queues, high priority and requests. Its root directory is
/// synthesised and holds one entry for each export; everything below is reached from the exports' descriptors alone.
/// </summary>
public sealed class VirtioFsDevice : VirtioDevice, ICounterSource
{
    /// <summary>Longest mount tag, in bytes of UTF-8 (5.11.4).</summary>
    public const int MaxTagLength = 36;

    private const int ConfigLength = MaxTagLength + sizeof(uint);
    private readonly byte[] _config = new byte[ConfigLength];
    private readonly FuseServer _server;
    private readonly DaxWindow? _window;
    private readonly ulong _windowGpa;
    private readonly DeviceThread[] _threads;
    private readonly List<FsQueueWorker> _workers = [];
    private IdleFileTimer? _timer;

    /// <summary>Makes a device with the given exports; more can be added while it runs.</summary>
    /// <param name="tag">The name that the guest mounts it by.</param>
    /// <param name="exports">Entries of the root directory; their descriptors are taken over, also when this throws.</param>
    /// <param name="name">Name for logs and counters: "fs0".</param>
    /// <param name="stripSetId">Files get no set-user-id and set-group-id bits, and no capabilities.</param>
    /// <param name="sockets">The channel on which sockets are lent (<see cref="SocketNotice"/>); taken over, also when this throws.</param>
    /// <exception cref="ArgumentException">The tag is empty or too long, or an export cannot be added.</exception>
    /// <exception cref="LinuxException">The process has no descriptors left or cannot read /proc/self/fd.</exception>
    /// <param name="window">Where the guest may map files; taken over.</param>
    /// <param name="windowGpa">Where the guest sees the window.</param>
    public VirtioFsDevice(
        string tag, IEnumerable<VirtioFsExport> exports, string name = "fs", bool stripSetId = false, DaxWindow? window = null, ulong windowGpa = 0,
        SafeFd? sockets = null)
        : this(tag, exports, FdBudget.OfProcess, name, stripSetId, window, windowGpa, sockets)
    {
    }

    internal VirtioFsDevice(
        string tag, IEnumerable<VirtioFsExport> exports, FdBudget budget, string name = "fs", bool stripSetId = false, DaxWindow? window = null, ulong windowGpa = 0,
        SafeFd? sockets = null)
    {
        ArgumentException.ThrowIfNullOrEmpty(tag);
        ArgumentNullException.ThrowIfNull(exports);
        if (Encoding.UTF8.GetByteCount(tag) > MaxTagLength)
        {
            throw new ArgumentException($"virtio-fs tag '{tag}' is longer than {MaxTagLength} bytes: choose a shorter one", nameof(tag));
        }

        Tag = tag;
        Name = name;
        _threads = [new DeviceThread($"{name}-hiprio", ThreadKind.Files), new DeviceThread($"{name}-requests", ThreadKind.Files)];
        _window = window;
        _windowGpa = windowGpa;
        _server = new FuseServer(budget, stripSetId, window, sockets);
        Encoding.UTF8.GetBytes(tag, _config);
        BinaryPrimitives.WriteUInt32LittleEndian(_config.AsSpan(MaxTagLength), 1);
        foreach (VirtioFsExport export in exports)
        {
            if (!TryAddExport(export, out string? error))
            {
                throw new ArgumentException(error, nameof(exports));
            }
        }
    }

    /// <summary>The mount tag.</summary>
    public string Tag { get; }

    /// <inheritdoc/>
    public override uint DeviceId => 26;

    /// <inheritdoc/>
    public override string Name { get; }

    /// <inheritdoc/>
    public override ulong DeviceFeatures => 0;

    /// <inheritdoc/>
    public override ReadOnlySpan<ushort> QueueMaxSizes => [128, 512];

    /// <inheritdoc/>
    public override bool TakesWindowBuffers => true;

    /// <inheritdoc/>
    public override bool TryGetSharedMemory(byte id, out ulong gpa, out ulong length)
    {
        // 5.11.6.4: VIRTIO_FS_SHMCAP_ID_CACHE.
        gpa = _windowGpa;
        length = _window?.Length ?? 0;
        return id == 0 && _window is not null;
    }

    /// <summary>Adds an entry to the root directory. Any thread; the guest sees it at its next look-up.</summary>
    /// <param name="export">What to add; its descriptor is taken over, also when it cannot be added.</param>
    /// <param name="error">Why not: a sentence for the user.</param>
    public bool TryAddExport(VirtioFsExport export, out string? error)
    {
        ArgumentNullException.ThrowIfNull(export);
        bool added = _server.TryAddExport(export, out error);
        error = added ? null : $"virtio-fs '{Tag}': {error}";
        return added;
    }

    /// <summary>
    /// Removes an entry of the root directory and closes every descriptor below it, so that the host can unmount it; what
    /// the guest still has open answers ESTALE. Any thread.
    /// </summary>
    /// <returns>False when there is no such entry.</returns>
    public bool RemoveExport(string name)
    {
        if (!_server.RemoveExport(name, out bool found))
        {
            VmmLog.Write($"virtio-fs '{Tag}': a request still uses the removed export '{name}'; its files are closed when that ends");
        }

        return found;
    }

    /// <inheritdoc/>
    public override void ReadConfig(uint offset, Span<byte> data) => CopyConfig(_config, offset, data);

    /// <summary>Only a file system that the guest has not mounted can be saved so far.</summary>
    public override string? WhyNotSaved => _server.HasSession ? $"virtio-fs '{Tag}' is mounted by the guest, and what the guest knows of its files cannot be saved" : null;

    /// <inheritdoc/>
    public override void SaveState(StateWriter writer)
    {
        ArgumentNullException.ThrowIfNull(writer);
        writer.WriteText(Tag);
        writer.Write(_windowGpa);
        writer.Write(_window?.Length ?? 0);
    }

    /// <inheritdoc/>
    public override void RestoreState(StateReader reader)
    {
        ArgumentNullException.ThrowIfNull(reader);
        string tag = reader.ReadText(MaxTagLength);
        if (tag != Tag)
        {
            throw new SnapshotException($"{Name}: the snapshot has a file system with the tag \"{tag}\" here, the configuration one with \"{Tag}\"");
        }

        ulong gpa = reader.Read<ulong>(), length = reader.Read<ulong>();
        if (gpa != _windowGpa || length != (_window?.Length ?? 0))
        {
            throw new SnapshotException($"{Name}: the snapshot has a window of {length >> 20} MiB at {gpa:x}, the configuration one of {(_window?.Length ?? 0) >> 20} MiB at {_windowGpa:x}");
        }
    }

    /// <inheritdoc/>
    public override void Activate(VirtioActivation activation)
    {
        ArgumentNullException.ThrowIfNull(activation);
        IdleFileTimer? timer = _timer = new IdleFileTimer(_server.Upkeep);
        for (int i = 0; i < activation.Queues.Length; i++)
        {
            if (activation.Queues[i] is { } queue)
            {
                _workers.Add(new FsQueueWorker(_threads[i], _server, queue, activation.Interrupt, timer, mayWait: i == 1));
                timer = null;
            }
        }
    }

    /// <inheritdoc/>
    public override void StartThreads() => Array.ForEach(_threads, t => t.Start());

    /// <inheritdoc/>
    public override void NarrowThreads() => Array.ForEach(_threads, t => t.Narrow());

    /// <inheritdoc/>
    public override bool TryPark(int milliseconds)
    {
        _workers.ForEach(w => w.RequestStop());
        return _workers.TrueForAll(w => w.TryPark(milliseconds));
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        _ = TryPark(Timeout.Infinite);
        _workers.ForEach(w => w.Dispose());
        _workers.Clear();
        _timer?.Dispose();
        _timer = null;
        _server.EndSession();
        _server.Waiting.Clear();
        _server.Events.Clear(dropRequest: true);
    }

    /// <inheritdoc/>
    public void CollectCounters(Action<string, long> add)
    {
        ArgumentNullException.ThrowIfNull(add);
        _server.Counters.Collect(Name, add);
        add(Name + ".inodes", _server.InodeCount);
        add(Name + ".handles", _server.HandleCount);
        add(Name + ".idle_descriptors", _server.Upkeep.IdleCount);
        add(Name + ".locks", _server.LockCount);
        add(Name + ".watched", _server.Events.Watched);
        add(Name + ".events_lost", _server.Events.Lost);
        add(Name + ".mappings", _server.Upkeep.MappingCount);
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        Reset();
        Array.ForEach(_threads, t => t.Dispose());
        _server.Dispose();
        _window?.Dispose();
        base.Dispose();
    }
}
