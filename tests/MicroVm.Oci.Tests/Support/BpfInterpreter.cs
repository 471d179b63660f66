using System.Buffers.Binary;
using MicroVm.Oci.Devices;
using MicroVm.Oci.Seccomp;

namespace MicroVm.Oci.Tests.Support;

/// <summary>struct seccomp_data.</summary>
internal readonly record struct SeccompCall(uint Number, uint Architecture, ulong[] Args)
{
    public byte[] ToBytes()
    {
        byte[] data = new byte[64];
        BinaryPrimitives.WriteUInt32LittleEndian(data, Number);
        BinaryPrimitives.WriteUInt32LittleEndian(data.AsSpan(4), Architecture);
        for (int i = 0; i < 6; i++)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(data.AsSpan(16 + (8 * i)), Args[i]);
        }

        return data;
    }
}

/// <summary>Runs classic BPF over seccomp data and eBPF over a device context, as the kernel defines the instructions.</summary>
internal static class BpfInterpreter
{
    public static uint Run(IReadOnlyList<BpfInstruction> program, SeccompCall call)
    {
        byte[] data = call.ToBytes();
        uint a = 0;
        for (int pc = 0; ; pc++)
        {
            BpfInstruction i = program[pc];
            switch (i.Code)
            {
                case 0x20:
                    a = BinaryPrimitives.ReadUInt32LittleEndian(data.AsSpan((int)i.Operand));
                    break;
                case 0x54:
                    a &= i.Operand;
                    break;
                case 0x05:
                    pc += (int)i.Operand;
                    break;
                case 0x15:
                    pc += a == i.Operand ? i.JumpTrue : i.JumpFalse;
                    break;
                case 0x25:
                    pc += a > i.Operand ? i.JumpTrue : i.JumpFalse;
                    break;
                case 0x35:
                    pc += a >= i.Operand ? i.JumpTrue : i.JumpFalse;
                    break;
                case 0x06:
                    return i.Operand;
                default:
                    throw new InvalidOperationException($"instruction {i} at {pc}");
            }
        }
    }

    public static ulong RunDevice(IReadOnlyList<EbpfInstruction> program, DeviceType type, DeviceAccess access, uint major, uint minor)
    {
        uint[] context = [((uint)access << 16) | (uint)type, major, minor];
        ulong[] r = new ulong[11];
        for (int pc = 0; ; pc++)
        {
            EbpfInstruction i = program[pc];
            switch (i.Code)
            {
                case 0x61:
                    r[i.Destination] = context[i.Offset / 4];
                    break;
                case 0xb7:
                    r[i.Destination] = (ulong)(long)i.Immediate;
                    break;
                case 0xbf:
                    r[i.Destination] = r[i.Source];
                    break;
                case 0x57:
                    r[i.Destination] &= (ulong)(long)i.Immediate;
                    break;
                case 0x77:
                    r[i.Destination] >>= i.Immediate;
                    break;
                case 0x15:
                    pc += r[i.Destination] == (ulong)(long)i.Immediate ? i.Offset : 0;
                    break;
                case 0x55:
                    pc += r[i.Destination] != (ulong)(long)i.Immediate ? i.Offset : 0;
                    break;
                case 0x95:
                    return r[0];
                default:
                    throw new InvalidOperationException($"instruction {i} at {pc}");
            }
        }
    }
}
