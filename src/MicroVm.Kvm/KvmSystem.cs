using System.Runtime.InteropServices;
using MicroVm.Kvm.Native;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using static MicroVm.Kvm.Native.KvmAbi;

namespace MicroVm.Kvm;

/// <summary>The KVM device: what the host can do, and where VMs come from. Owns its descriptor.</summary>
public sealed unsafe class KvmSystem : IDisposable
{
    /// <summary>Where KVM is found.</summary>
    public const string DevicePath = "/dev/kvm";

    private const int MaxCpuidEntries = 1024;
    private readonly SafeFd _fd;
    private int _vcpuMmapSize;

    /// <summary>Takes over a descriptor of the KVM device, opened by someone else.</summary>
    /// <exception cref="KvmUnavailableException">It is not the KVM device, or its API version is not 12.</exception>
    public KvmSystem(SafeFd fd)
    {
        ArgumentNullException.ThrowIfNull(fd);
        _fd = fd;
        int version = KvmIoctl.TryCall(fd, KVM_GET_API_VERSION, null);
        if (version != KVM_API_VERSION)
        {
            string found = version < 0 ? LinuxException.Text(Check.LastErrno) : $"version {version}";
            throw new KvmUnavailableException($"{DevicePath} does not speak KVM API version {KVM_API_VERSION}: {found}");
        }
    }

    /// <summary>Opens the KVM device.</summary>
    /// <exception cref="KvmUnavailableException">There is none, or this user may not open it; the message says what to do.</exception>
    public static KvmSystem Open(string path = DevicePath)
    {
        int fd = Libc.open(path, Libc.O_RDWR | Libc.O_CLOEXEC, 0);
        if (fd < 0)
        {
            throw KvmUnavailableException.ForOpen(path, Check.LastErrno);
        }

        SafeFd owned = new(fd);
        try
        {
            return new KvmSystem(owned);
        }
        catch
        {
            owned.Dispose();
            throw;
        }
    }

    /// <summary>Size in bytes of the area that a vCPU shares with user space.</summary>
    public int VcpuMmapSize => _vcpuMmapSize != 0 ? _vcpuMmapSize : _vcpuMmapSize = KvmIoctl.Call(_fd, KVM_GET_VCPU_MMAP_SIZE);

    /// <summary>KVM_CHECK_EXTENSION: 0 when the host lacks <paramref name="capability"/>, else 1 or its number.</summary>
    public int CheckExtension(uint capability) => KvmIoctl.Call(_fd, KVM_CHECK_EXTENSION, (nint)capability);

    /// <summary>The CPUID leaves that KVM can give to a guest.</summary>
    /// <exception cref="LinuxException">KVM refuses.</exception>
    public kvm_cpuid_entry2[] GetSupportedCpuid()
    {
        for (int capacity = 128; ; capacity *= 2)
        {
            nuint size = (nuint)(sizeof(kvm_cpuid2) + (capacity * sizeof(kvm_cpuid_entry2)));
            kvm_cpuid2* list = (kvm_cpuid2*)NativeMemory.AllocZeroed(size);
            try
            {
                list->nent = (uint)capacity;
                if (KvmIoctl.TryCall(_fd, KVM_GET_SUPPORTED_CPUID, list) >= 0)
                {
                    return new ReadOnlySpan<kvm_cpuid_entry2>(list + 1, (int)list->nent).ToArray();
                }

                if (Check.LastErrno != Errno.E2BIG || capacity >= MaxCpuidEntries)
                {
                    Check.Throw("KVM_GET_SUPPORTED_CPUID");
                }
            }
            finally
            {
                NativeMemory.Free(list);
            }
        }
    }

    /// <summary>Numbers of the MSRs that make up a guest's state, for snapshots.</summary>
    /// <exception cref="LinuxException">KVM refuses.</exception>
    public uint[] GetMsrIndexList()
    {
        // The first call says how many there are (E2BIG), the second gives them.
        kvm_msr_list header = default;
        if (KvmIoctl.TryCall(_fd, KVM_GET_MSR_INDEX_LIST, &header) >= 0)
        {
            return [];
        }

        if (Check.LastErrno != Errno.E2BIG)
        {
            Check.Throw("KVM_GET_MSR_INDEX_LIST");
        }

        kvm_msr_list* list = (kvm_msr_list*)NativeMemory.AllocZeroed((nuint)sizeof(kvm_msr_list) + (header.nmsrs * sizeof(uint)));
        try
        {
            list->nmsrs = header.nmsrs;
            KvmIoctl.Call(_fd, KVM_GET_MSR_INDEX_LIST, list);
            return new ReadOnlySpan<uint>(list + 1, (int)Math.Min(list->nmsrs, header.nmsrs)).ToArray();
        }
        finally
        {
            NativeMemory.Free(list);
        }
    }

    /// <summary>Creates an empty VM; the caller disposes it before this object.</summary>
    /// <exception cref="LinuxException">The host is out of memory or of descriptors.</exception>
    public KvmVm CreateVm() => new(new SafeFd(KvmIoctl.Call(_fd, KVM_CREATE_VM)), this);

    /// <inheritdoc/>
    public void Dispose() => _fd.Dispose();
}
