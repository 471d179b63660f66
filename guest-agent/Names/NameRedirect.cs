using System.Buffers.Binary;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Names;

namespace MicroVm.Agent.Names;

/// <summary>
/// Leads what processes send to port 53 of an address to another port, and lets them see port 53 as the other side, by eBPF programs
/// of the cgroup hierarchy's root (BPF_PROG_TYPE_CGROUP_SOCK_ADDR). Unlike netfilter's rules the container cannot flush them.
/// </summary>
internal sealed unsafe class NameRedirect : IDisposable
{
    // struct bpf_sock_addr: user_ip4, user_port; R1 points to it, R0 is the result.
    private const short IpOffset = 4, PortOffset = 24;

    private readonly SafeFd _cgroup;
    private readonly List<(SafeFd Program, int Type)> _attached = [];

    /// <summary>For the hierarchy at <paramref name="cgroup"/>.</summary>
    /// <exception cref="LinuxException">It is not there.</exception>
    internal NameRedirect(string cgroup) =>
        _cgroup = SafeFd.From(Libc.open(cgroup, Libc.O_RDONLY | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0), "open", cgroup);

    /// <summary>Redirects port 53 of an address (network byte order) to <paramref name="port"/>.</summary>
    /// <returns>False when the kernel cannot.</returns>
    internal bool TryAdd(uint address, ushort port)
    {
        int before = _attached.Count;
        bool added = TryAttach(Libc.BPF_CGROUP_INET4_CONNECT, address, NameFrame.Port, port)
            && TryAttach(Libc.BPF_CGROUP_UDP4_SENDMSG, address, NameFrame.Port, port)
            && TryAttach(Libc.BPF_CGROUP_UDP4_RECVMSG, address, port, NameFrame.Port)
            && TryAttach(Libc.BPF_CGROUP_INET4_GETPEERNAME, address, port, NameFrame.Port);
        while (!added && _attached.Count > before)
        {
            DetachLast();
        }

        return added;
    }

    public void Dispose()
    {
        while (_attached.Count > 0)
        {
            DetachLast();
        }

        _cgroup.Dispose();
    }

    /// <summary>
    /// The program, as an array of struct bpf_insn: where address and port are those, the port becomes the other one; the call goes on
    /// in any case.
    /// </summary>
    internal static ulong[] Program(uint address, ushort from, ushort to) =>
    [
        BpfProgram.Instruction(0x61, 2, 1, IpOffset, 0), // r2 = user_ip4
        BpfProgram.Instruction(0x56, 2, 0, 4, address), // if w2 != address goto +4
        BpfProgram.Instruction(0x61, 2, 1, PortOffset, 0), // r2 = user_port
        BpfProgram.Instruction(0x56, 2, 0, 2, BinaryPrimitives.ReverseEndianness(from)), // if w2 != from goto +2
        BpfProgram.Instruction(0xb4, 2, 0, 0, BinaryPrimitives.ReverseEndianness(to)), // w2 = to
        BpfProgram.Instruction(0x63, 1, 2, PortOffset, 0), // user_port = r2
        BpfProgram.Instruction(0xb7, 0, 0, 0, 1), // r0 = 1
        BpfProgram.Instruction(0x95, 0, 0, 0, 0), // exit
    ];

    private bool TryAttach(int type, uint address, ushort from, ushort to)
    {
        const int attachSize = 16;
        SafeFd? program = null;
        try
        {
            program = BpfProgram.Load(Libc.BPF_PROG_TYPE_CGROUP_SOCK_ADDR, type, Program(address, from, to));
            if (!Change(Libc.BPF_PROG_ATTACH, program, type, Libc.BPF_F_ALLOW_MULTI, attachSize))
            {
                Check.Throw("bpf(BPF_PROG_ATTACH)");
            }

            _attached.Add((program, type));
            return true;
        }
        catch (LinuxException e)
        {
            Boot.Log.Warn($"names are answered on port 53 itself: {e.Message}");
            program?.Dispose();
            return false;
        }
    }

    private void DetachLast()
    {
        (SafeFd program, int type) = _attached[^1];
        _ = Change(Libc.BPF_PROG_DETACH, program, type, 0, sizeof(uint) * 4);
        program.Dispose();
        _attached.RemoveAt(_attached.Count - 1);
    }

    private bool Change(int command, SafeFd program, int type, int flags, int size)
    {
        uint* attr = stackalloc uint[4];
        (attr[0], attr[1], attr[2], attr[3]) = ((uint)_cgroup.Value, (uint)program.Value, (uint)type, (uint)flags);
        return Libc.bpf(command, attr, (uint)size) >= 0;
    }
}
